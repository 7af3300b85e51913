"""Evaluation against the reference, query by query, and what it may not depend on."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.easy import MINIATURES, TINY, double_params, easy_store, skip_without_native, small_config
from tests.runs import resealed
from tests.sidebyside import cut, reference_for, run_both
from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.distributed.process_group import Processes
from torchreptile.core.errors import ConfigError, DataError, RunError
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.data.splits import MissingSplit, Splits
from torchreptile.models.blueprint import initial_params
from torchreptile.models.conv4.network import for_images
from torchreptile.training.evaluation import evaluate as evaluate_module
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import Accuracy
from torchreptile.training.train import train
from torchreptile.training.weights import load_weights


def algorithm_for(config: Config, shape: tuple[int, int, int] = (1, 28, 28)) -> Algorithm:
    return build_algorithm(config, shape, torch.device("cpu"))


def tiny_start(config: Config) -> tuple[Algorithm, MetaState]:
    algorithm = algorithm_for(config, TINY)
    return algorithm, algorithm.initial_state(initial_params(for_images, TINY, config.task.way, config.run.seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("execution", ["loop", "grouped", "native"])
@pytest.mark.parametrize("policy", ["share", "reset"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_predictions_are_the_references(optimizer: str, policy: str, execution: str) -> None:
    """After some training, so that Adam's second moment is not fresh; labels of both kinds, in float64."""
    skip_without_native(execution)
    config = small_config(
        inner_optimizer=optimizer, inner_lr=0.1 if optimizer == "sgd" else 1e-3, inner_state=policy, queries=2,
        eval_steps=6, eval_batch=2, execution=execution, meta_batch=2,
    )  # fmt: skip
    both = run_both(config, easy_store(10), outer_steps=2)
    sampler = EpisodeSampler(
        easy_store(12, 20, seed=3, noise=2.0), 3, 1, 2, torch.float64
    )  # hard, so that mistakes are compared too
    episodes = sampler.sample(6, seeded(8))
    predictions = both.algorithm.predict(both.state, episodes, seeded(9))
    batches = cut(episodes, batch=2, steps=6, replacement=False, generator=seeded(9))
    for task in range(6):
        together, alone = both.reference.adapted_logits(batches[task], episodes.support_x[task], episodes.query_x[task])
        assert predictions.transductive[task].tolist() == together.argmax(1).tolist()
        assert predictions.inductive[task].tolist() == alone.argmax(1).tolist()
    assert not torch.equal(predictions.transductive, episodes.query_y)
    assert not torch.equal(predictions.inductive, predictions.transductive)


@pytest.mark.parametrize("policy", ["share", "carry"])
def test_every_episode_starts_from_trainings_second_moment(policy: str) -> None:
    """A state whose second moment is huge hardly moves; were it ignored, the predictions would be a fresh Adam's."""
    config = small_config(inner_state=policy, eval_steps=5, inner_lr=0.01)
    algorithm = algorithm_for(config)
    state = algorithm.initial_state(double_params(config))
    for v in state.inner.v.values():
        v.fill_(1e12)
    state.inner.steps.fill_(1e6)
    episodes = EpisodeSampler(easy_store(12), 3, 1, 1, torch.float64).sample(10, seeded(0))
    predicted = algorithm.predict(state, episodes, seeded(1)).transductive
    untouched = reference_for(config, state)
    for task in range(10):
        logits, _ = untouched.adapted_logits([], episodes.support_x[task], episodes.query_x[task])
        assert predicted[task].tolist() == logits.argmax(1).tolist()
    fresh = algorithm.initial_state(state.params)
    assert not torch.equal(algorithm.predict(fresh, episodes, seeded(1)).transductive, predicted)


def test_evaluation_leaves_no_trace() -> None:
    """Deep equality of the state before and after, with a second moment as after training."""
    config = small_config()
    algorithm, state = tiny_start(config)
    for v in state.inner.v.values():
        v.uniform_(0.1, 0.2, generator=seeded(0))
    state.inner.steps.fill_(40)
    before = copy.deepcopy(state)
    measure(algorithm, state, EpisodeSampler(easy_store(12, shape=TINY), 3, 1, 1), 4, seed=0)
    for name in before.params:
        assert torch.equal(state.params[name], before.params[name])
        assert torch.equal(state.inner.v[name], before.inner.v[name])
    assert torch.equal(state.inner.steps, before.inner.steps)


def test_other_queries_matter_to_transductive_predictions_alone() -> None:
    """Query 0 stays, all others become noise: BatchNorm shows it them in the transductive batch only."""
    config = small_config(way=5, eval_steps=1)
    algorithm, state = tiny_start(config)
    episodes = EpisodeSampler(easy_store(12, shape=TINY), 5, 1, 1).sample(60, seeded(0))
    changed = episodes.query_x.clone()
    changed[:, 1:] = torch.rand(changed[:, 1:].shape, generator=seeded(5)) ** 8
    other = replace(episodes, query_x=changed)
    first, second = (algorithm.predict(state, e, seeded(1)) for e in (episodes, other))
    assert torch.equal(first.inductive[:, 0], second.inductive[:, 0])
    assert not torch.equal(first.transductive[:, 0], second.transductive[:, 0])
    assert not torch.equal(first.inductive[:, 1:], second.inductive[:, 1:])


@pytest.mark.parametrize("episodes", [40, 33])
def test_the_first_episodes_of_a_longer_measurement_are_the_same(episodes: int) -> None:
    """Accuracies of 33 or 40 episodes equal those of the first 33 or 40 of 100."""
    config = small_config(eval_steps=2)
    algorithm, state = tiny_start(config)
    sampler = EpisodeSampler(easy_store(12, shape=TINY), 3, 1, 1)
    taken: list[torch.Tensor] = []

    with pytest.MonkeyPatch.context() as patch:
        real = Accuracy.over
        patch.setattr(Accuracy, "over", lambda per_episode: taken.append(per_episode) or real(per_episode))
        measure(algorithm, state, sampler, 100, seed=3)
        measure(algorithm, state, sampler, episodes, seed=3)
        measure(algorithm, state, sampler, episodes, seed=4)
    assert [len(each) for each in taken] == [100, 100, *[episodes] * 4]
    for long, short, other in zip(taken[:2], taken[2:4], taken[4:], strict=True):
        assert torch.equal(long[:episodes], short)
        assert not torch.equal(short, other)


def test_every_setting_and_algorithm_is_measured_on_the_same_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every draw, the last and incomplete one included, whatever adaptation draws and however tasks are chunked."""
    monkeypatch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 2)
    sampler = EpisodeSampler(easy_store(10, images=4, shape=TINY), 3, 1, 1)
    seen: list[torch.Tensor] = []
    sample = EpisodeSampler.sample

    def noted(self: EpisodeSampler, tasks: int, generator: torch.Generator) -> Episodes:
        episodes = sample(self, tasks, generator)
        if self is sampler:
            seen.append(torch.cat([episodes.support_x, episodes.query_x], 1))
        return episodes

    monkeypatch.setattr(EpisodeSampler, "sample", noted)
    settings: list[dict[str, object]] = [
        {"eval_batch": 3, "eval_steps": 4},
        {"eval_batch": 2, "eval_steps": 1, "task_chunk": 1},
        {"eval_batch": 3, "eval_steps": 0, "task_chunk": 3},
        {"algorithm": "protonet", "execution": "auto"},
        {"algorithm": "mann", "execution": "auto", **MINIATURES["mann"]},
    ]
    for changes in settings:
        algorithm = algorithm_for(small_config(**changes), TINY)
        measure(algorithm, algorithm.begin(0), sampler, 7, seed=0)
    assert len(seen) == 4 * len(settings)
    first = torch.stack(seen[:4])
    assert not torch.equal(first[0], first[1])
    for start in range(4, len(seen), 4):
        assert torch.equal(torch.stack(seen[start : start + 4]), first), settings[start // 4]


def test_progress_is_told() -> None:
    algorithm, state = tiny_start(small_config(eval_steps=1))
    progress: list[int] = []
    measure(algorithm, state, EpisodeSampler(easy_store(12, shape=TINY), 3, 1, 1), 250, 0, progress.append)
    assert progress == [100, 200, 250]


def test_accuracy_over() -> None:
    values = [1.0, 0.5, 0.75, 0.25, 1.0, 1.0, 0.0]
    result = Accuracy.over(torch.tensor(values, dtype=torch.float64))
    assert result.mean == pytest.approx(statistics.mean(values))
    assert result.ci95 == pytest.approx(1.96 * statistics.stdev(values) / math.sqrt(len(values)))
    assert result.episodes == 7
    assert str(Accuracy(0.97684, 0.00087, 10_000)) == "97.68% ± 0.09"


@pytest.fixture
def run(tmp_path: Path, easy_data: Splits) -> Path:
    train(small_config(outer_steps=1, eval_steps=2), tmp_path / "run")
    return tmp_path / "run"


def test_evaluate_keeps_its_result_with_everything_beside_it(run: Path) -> None:
    result = evaluate(run, episodes=8, seed=5, device="cpu")
    again = evaluate(run, episodes=8, seed=5, device="cpu")
    assert result.result == again.result
    assert (result.split, result.seed, result.step, result.source) == ("test", 5, 1, "run")
    assert result.result.transductive.episodes == result.config.evaluation.eval_episodes == 8
    saved = run / result.file_name
    assert Evaluation.from_json(saved.read_text()) == again
    assert "torch" in again.environment
    assert again.config.run.execution == "auto"
    chosen = {name: again.environment[name] for name in ("device", "execution", "threads", "processes")}
    assert chosen["execution"] in ("native", "grouped")  # what auto takes, with a compiler and without
    assert chosen == chosen | {"device": "cpu", "threads": torch.get_num_threads(), "processes": 1}
    assert [path.name for path in run.glob("eval-*")] == [result.file_name]


def test_evaluate_takes_other_settings(run: Path) -> None:
    result = evaluate(run, "train", shots=3, episodes=6, eval_steps=1, eval_batch=7, device="cpu")
    task, settings = result.config.task, result.config.evaluation
    assert (task.shots, settings.eval_episodes, settings.eval_steps, settings.eval_batch) == (3, 6, 1, 7)
    assert result.file_name.startswith("eval-omniglot-train-3shot-3way-")
    other = evaluate(run, "train", shots=3, episodes=6, eval_steps=1, eval_batch=7, device="cpu", seed=1)
    assert other.file_name != result.file_name  # neither takes the other's place
    assert len(list(run.glob("eval-*"))) == 2
    for file in run.glob("eval-*"):
        file.unlink()
    assert load_weights(run).config.task.shots == 1  # the run's own settings stay


def test_any_number_of_queries(run: Path) -> None:
    """Each query is labelled alone, so more of them measure the same accuracy; the record says how many."""
    one, many = (evaluate(run, episodes=4, device="cpu", queries=queries) for queries in (None, 7))
    assert (one.config.evaluation.queries, many.config.evaluation.queries) == (1, 7)
    shares = {round(3 * 7 * 4 * many.result.by_mode(mode).mean, 6) for mode in ("transductive", "inductive")}
    assert all(share == int(share) for share in shares)  # of 21 queries in each of 4 episodes
    assert one.file_name != many.file_name
    with pytest.raises(ConfigError, match="queries is 0"):
        evaluate(run, episodes=4, device="cpu", queries=0)
    with pytest.raises(DataError, match="1 shots \\+ 20 queries need 21"):
        evaluate(run, episodes=4, device="cpu", queries=20)


def test_a_rate_without_effect_is_refused(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(algorithm="protonet", execution="auto", outer_steps=1), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"inner_lr is 0\.3, but protonet takes no inner steps in an episode"):
        evaluate(tmp_path / "run", episodes=4, device="cpu", inner_lr=0.3)
    evaluate(tmp_path / "run", episodes=4, device="cpu", inner_lr=0.3, finetune_steps=1)


def test_evaluate_refuses_what_cannot_work(run: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="has 20 images"):
        evaluate(run, shots=20, episodes=4, device="cpu")
    with pytest.raises(ConfigError, match="eval_episodes is 1"):
        evaluate(run, episodes=1, device="cpu")
    with pytest.raises(RunError, match="neither a run folder nor shipped weights"):
        evaluate(run / "nothing", device="cpu")
    without = Splits(easy_data.train, MissingSplit("easy has no val classes; take train or test"), easy_data.test)
    monkeypatch.setattr("torchreptile.training.evaluation.evaluate.load_splits", lambda task: without)
    with pytest.raises(DataError, match="has no val classes; take train or test"):
        evaluate(run, "val", device="cpu")
    assert not list(run.glob("eval-*"))


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"published_percent": {}, "config": {}}'])
def test_a_foreign_evaluation_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="not an evaluation"):
        Evaluation.from_json(text)


IMPOSSIBLE: list[tuple[tuple[str, ...], object]] = [
    (("result", "inductive", "mean"), 1.5),
    (("result", "inductive", "mean"), -0.1),
    (("result", "inductive", "mean"), True),
    (("result", "inductive", "ci95"), "0.1"),
    (("result", "inductive", "episodes"), 2.5),
    (("result", "inductive", "episodes"), 0),
    (("result", "diverged"), -1),
    (("seed",), 1.5),
    (("step",), -1),
    (("seconds",), None),
    (("split",), "all"),
    (("source",), 3),
    (("environment",), []),
    (("unknown",), 1),
]


def test_an_evaluation_whose_values_cannot_be_or_have_changed_is_refused(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(outer_steps=1), tmp_path / "run")
    text = evaluate(tmp_path / "run", episodes=2, device="cpu").to_json()
    assert Evaluation.from_json(text).result.episodes == 2
    for path, value in IMPOSSIBLE:
        content = json.loads(text)
        inner = content
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        with pytest.raises(RunError, match="its checksum differs"):
            Evaluation.from_json(json.dumps(content))
        with pytest.raises(RunError, match=r"not an evaluation: (?!its content is not what was written)"):
            Evaluation.from_json(resealed(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("settings", "the settings are not those of the first process: eval_steps"),
        ("seed", "the seed of this process"),
        ("weights", "the weights of this process"),
        ("data", "the data of this process"),
    ],
)
def test_processes_that_evaluate_something_else_are_refused(change: str, message: str) -> None:
    """A second process compares what it has with what the first one sent."""
    weights = load_weights("glyphs-5way")
    store = easy_store(10, shape=(1, 28, 28))
    sent: list[bytes] = []

    class Second(Processes):
        def from_first(self, content: bytes) -> bytes:
            sent.append(content)
            return sent[(len(sent) - 1) % 2]

        def together(self) -> Any:
            return contextlib.nullcontext()

    second, config = Second(1, 2), weights.config
    for _ in range(2):
        evaluate_module._require_alike(second, config, 0, weights, store)
    moved = {name: p + 1 for name, p in weights.state.params.items()}
    others = {
        "settings": (config.replace(eval_steps=7), 0, weights, store),
        "seed": (config, 1, weights, store),
        "weights": (config, 0, replace(weights, state=replace(weights.state, params=moved)), store),
        "data": (config, 0, weights, easy_store(11, shape=(1, 28, 28))),
    }
    with pytest.raises(ConfigError, match=message):
        evaluate_module._require_alike(second, *others[change])
