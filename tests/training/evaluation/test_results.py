"""How results show themselves: one line in Python, a table in Jupyter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import Accuracy, Fit, Result, SquaredError
from torchreptile.training.trainer import Run

RESULT = Result(Accuracy(0.9768, 0.0004, 10_000), Accuracy(0.9539, 0.0009, 10_000))
EVALUATION = Evaluation("runs/a<b", 7, "omniglot", "test", Config(), RESULT, 0, 1.0, {"command": "reptile"})


def test_results_are_short_in_python() -> None:
    assert repr(RESULT) == "Result(97.68% ± 0.04 transductive, 95.39% ± 0.09 inductive)"
    fit = Fit(SquaredError(0.02134, 0.00112, 1_000), SquaredError(4.0, 0.1, 1_000))
    assert repr(fit).startswith("Fit(mse 0.0213 ± 0.0011, ")
    assert repr(EVALUATION) == (
        "Evaluation(runs/a<b on test classes of omniglot, 5-way 1-shot, 10,000 episodes: "
        "97.68% ± 0.04 transductive, 95.39% ± 0.09 inductive)"
    )


def test_results_are_tables_in_jupyter() -> None:
    row = "<tr><th>inductive</th><td>95.39% ± 0.09</td></tr>"
    assert row in RESULT._repr_html_()
    assert row in EVALUATION._repr_html_()
    assert "<caption>runs/a&lt;b on test classes" in EVALUATION._repr_html_()
    alone = replace(RESULT, transductive=None)
    assert "transductive" not in alone._repr_html_()


def test_a_run_is_shown_without_its_weights() -> None:
    weights = {"w": torch.zeros(1000)}
    state = MetaState(weights, InnerState.fresh(weights, "sgd", 1), OuterState.fresh(weights, "sgd"))
    run = Run(Path("runs/mine"), state, 3, interrupted=True, measured={"val": RESULT})
    assert repr(run) == f"Run(runs/mine, 3 outer steps, interrupted, val {RESULT})"
    assert "<th>outer steps</th><td>3 (interrupted; it can be resumed)</td>" in run._repr_html_()
