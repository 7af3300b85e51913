"""Shipped weights on real pictures: every measurement on their cards, on fewer episodes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.easy import REPOSITORY
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.weights import shipped_card, shipped_weights

DATA = Path(os.environ.get("TORCHREPTILE_DATA") or REPOSITORY.parent / "shared" / "data")
MEASURED = [
    pytest.param(name, line, id=f"{name} on {line['dataset']}, {line['shots']}-shot")
    for name in shipped_weights()
    for line in shipped_card(name)["results"]
]
EPISODES, FEWEST, SECONDS = 60, 30, 20  # of each measurement: so many, but fewer where that took longer


@pytest.mark.parametrize(("name", "line"), MEASURED)
def test_shipped_weights_are_as_good_as_their_card_says(
    name: str, line: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the card's command says, but for the episodes: within 4 standard errors of what it has."""
    if not list((DATA / line["dataset"]).glob("images*")):
        pytest.skip(f"no {line['dataset']} in {DATA}; set TORCHREPTILE_DATA to a folder with {line['dataset']}/")
    monkeypatch.setenv("TORCHREPTILE_DATA", str(DATA))
    words = shlex.split(line["command"])
    episodes = min(EPISODES, max(FEWEST, int(SECONDS * line["episodes"] / (60 * line["minutes"]))))
    asked = dict(zip(words[3::2], words[4::2], strict=True))
    result = evaluate(
        name, line["split"], dataset=line["dataset"], shots=line["shots"], episodes=episodes,
        eval_steps=int(asked["--eval-steps"]), eval_batch=int(asked["--eval-batch"]), device="cpu",
    ).result  # fmt: skip
    print(result)
    for mode in ("transductive", "inductive"):
        expected, measured = line[mode], getattr(result, mode)
        # Of the card's episodes; all of these may be solved, which looks as if there were no spread.
        spread = expected["ci95"] / 196 * (line["episodes"] / episodes) ** 0.5
        assert measured.mean == pytest.approx(expected["accuracy"] / 100, abs=4 * spread)
