"""Every episode as a table: against the episodes that were drawn, in csv and as a DataFrame."""

from __future__ import annotations

import csv
import math
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.easy import TINY, easy_store, small_config
from tests.functions import small_sine, table_store
from torchreptile.algorithms.build import build_algorithm
from torchreptile.cli.main import main
from torchreptile.core.csv_text import csv_cell
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.functions.sine import sines
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler, sampler_of
from torchreptile.data.splits import Splits
from torchreptile.models.losses import NO_ANSWER
from torchreptile.training.evaluation import episode_table
from torchreptile.training.evaluation.episode_table import EpisodeTable
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.measure import EpisodeScores, measure_episodes
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.train import train

EPISODES = 7


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def store() -> ImageStore:
    """Eight classes whose images are named after their place in the store."""
    store = easy_store(8, images=6, shape=TINY)
    return replace(store, image_names=tuple(f"picture {index}.png" for index in range(48)))


@pytest.fixture(scope="module")
def scores(store: ImageStore) -> EpisodeScores:
    algorithm = build_algorithm(small_config(eval_steps=1), TINY, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 3)
        return measure_episodes(algorithm, algorithm.begin(0), EpisodeSampler(store, 3, 1, 2), EPISODES, seed=5)


@pytest.fixture
def table(store: ImageStore, scores: EpisodeScores, monkeypatch: pytest.MonkeyPatch) -> EpisodeTable:
    monkeypatch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 3)
    return EpisodeTable.of(scores, EpisodeSampler(store, 3, 1, 2), EPISODES, seed=5)


def test_rows_name_the_images_that_were_drawn_and_give_the_accuracies(
    table: EpisodeTable, scores: EpisodeScores, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels of the named images against the pixels of the episodes; written a few episodes at a time."""
    monkeypatch.setattr(episode_table, "AT_A_TIME", 2)
    table.write_csv(tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert len(rows) == EPISODES * 3 * 3
    generator = torch.Generator().manual_seed(5)
    drawn = [EpisodeSampler(store, 3, 1, 2).sample(3, generator) for _ in range(3)]
    by_episode: dict[int, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_episode[int(row["episode"])].append(row)
    assert sorted(by_episode) == list(range(EPISODES))
    for number, its in by_episode.items():
        episode = drawn[number // 3][number % 3 : number % 3 + 1]
        for role, expected in (("support", episode.support_x[0]), ("query", episode.query_x[0])):
            places = [
                int(row["image"].removeprefix("picture ").removesuffix(".png")) for row in its if row["role"] == role
            ]
            assert torch.equal(store.images[places] / 255, expected)
            named = [store.class_names[place // 6] for place in places]
            assert named == [row["class"] for row in its if row["role"] == role]
        for mode in ("transductive", "inductive"):
            right = [row["class"] == row[f"predicted_{mode}"] for row in its if row["role"] == "query"]
            assert {float(row[mode]) for row in its} == {float(scores.scores[mode][number])}
            assert sum(right) / len(right) == pytest.approx(float(scores.scores[mode][number]))
            assert all(
                row[f"predicted_{mode}"] in {row["class"] for row in its} for row in its if row["role"] == "query"
            )
            assert {row[f"predicted_{mode}"] for row in its if row["role"] == "support"} == {""}


def test_a_query_without_an_answer_has_no_label(table: EpisodeTable, scores: EpisodeScores, tmp_path: Path) -> None:
    labels = {mode: labels.clone() for mode, labels in scores.predicted.items()}
    labels["inductive"][4, 3] = NO_ANSWER
    replace(table, scores=replace(scores, predicted=labels)).write_csv(tmp_path / "out.csv")
    queries = [row for row in read(tmp_path / "out.csv") if row["role"] == "query"]
    empty = [(int(row["episode"]), place % 6) for place, row in enumerate(queries) if not row["predicted_inductive"]]
    assert empty == [(4, 3)]
    assert all(row["predicted_transductive"] for row in queries)


def test_text_never_becomes_a_formula(table: EpisodeTable, tmp_path: Path) -> None:
    names = ['=HYPERLINK("x")', "+1", "-1", "@a", 'ok,\n"so"', "\tx", "'quoted", "ähnlich"]
    table.class_names[:] = names
    table.write_csv(tmp_path / "out.csv")
    classes = {row["class"] for row in read(tmp_path / "out.csv")}
    assert not any(name.startswith(("=", "+", "-", "@", "\t")) for name in classes)
    assert classes == {csv_cell(names[place]) for place in set(table.classes.ravel().tolist())}
    assert [csv_cell(value) for value in (-1.5, 3, math.inf, None)] == [-1.5, 3, None, None]


def test_a_data_frame_has_the_same_columns(table: EpisodeTable, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="not a dependency")
    frame = table.frame()
    table.write_csv(tmp_path / "out.csv")
    written = pandas.read_csv(tmp_path / "out.csv")
    assert list(frame.columns) == list(written.columns)
    pandas.testing.assert_frame_equal(frame, written, check_dtype=False)
    queries = frame[frame.role == "query"]
    right = (queries["class"] == queries.predicted_inductive).groupby(queries.episode).mean()
    assert right.tolist() == pytest.approx(queries.groupby("episode").inductive.first().tolist())


def test_functions_have_a_row_per_episode(tmp_path: Path) -> None:
    """Named where they come from a table; an error that is not a number is an empty cell."""
    for functions, targets in ((table_store(), 1), (sines("sine"), 1)):
        algorithm = build_algorithm(
            small_sine(eval_steps=1), functions.image_shape, torch.device("cpu"), targets=targets
        )
        sampler = sampler_of(functions, 1, 5, 3)
        scores = measure_episodes(algorithm, algorithm.begin(0), sampler, 6, seed=1)
        scores.scores["mse"][2] = math.nan
        EpisodeTable.of(scores, sampler, 6, 1).write_csv(tmp_path / "out.csv")
        rows = read(tmp_path / "out.csv")
        assert [row["episode"] for row in rows] == list("012345")
        assert [row["mse"] == "" for row in rows] == [False, False, True, False, False, False]
        assert [float(row["mse_before"]) for row in rows] == pytest.approx(scores.scores["mse_before"].tolist())
        if functions.name == "made":
            drawn = sampler.sample(100, torch.Generator().manual_seed(1)).classes[:6, 0].tolist()
            assert [row["task"] for row in rows] == [f"t{task}" for task in drawn]
        else:
            assert "task" not in rows[0]


def test_evaluations_have_their_episodes_until_they_are_written(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(outer_steps=1, eval_steps=1), tmp_path / "run")
    evaluation = evaluate(tmp_path / "run", episodes=5, device="cpu")
    assert len(evaluation.episodes) == 5
    mean = float(evaluation.episodes.scores.scores["inductive"].mean())
    assert mean == evaluation.result.inductive.mean
    text = evaluation.to_json()
    assert '"episodes": 5' in text
    again = Evaluation.from_json(text)
    assert again == evaluation
    with pytest.raises(RunError, match="the episodes of run are not stored in its file; evaluate it again"):
        again.episodes_frame()


def test_the_command_writes_a_new_csv(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_config(outer_steps=1, eval_steps=1), tmp_path / "run")
    monkeypatch.chdir(tmp_path)

    def reptile(out: str, *more: str) -> tuple[int, str]:
        words = ["reptile", "evaluate", "run", "--episodes", "4", "--device", "cpu", "--per-episode", out, *more]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as exit_code:
            main()
        return int(exit_code.value.code or 0), capsys.readouterr().err.splitlines()[-1]

    assert reptile("out.csv", "--queries", "2") == (0, "every episode is in out.csv")
    rows = read(tmp_path / "out.csv")
    assert len(rows) == 4 * 3 * 3
    assert rows[0]["image"] == f"{rows[0]['class']}#{int(rows[0]['image'].rpartition('#')[2])}"
    before = (tmp_path / "out.csv").read_bytes()
    evaluations = len(list((tmp_path / "run").glob("eval-*")))
    assert reptile("out.csv") == (2, "reptile: --per-episode out.csv exists; name another file, or delete it")
    assert (tmp_path / "out.csv").read_bytes() == before
    assert reptile("out.txt")[1].endswith("out.txt ends in .txt; name a new file that ends in .csv")
    assert "the folder none is missing" in reptile("none/out.csv")[1]
    (tmp_path / "link.csv").symlink_to("nothing.csv")
    assert "link.csv exists" in reptile("link.csv")[1]
    assert len(list((tmp_path / "run").glob("eval-*"))) == evaluations  # refused before anything was computed


def test_without_pandas_it_says_so(table: EpisodeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.core.data_frame.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^pandas is not installed; pip install pandas$"):
        table.frame()
