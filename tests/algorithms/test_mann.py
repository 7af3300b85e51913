"""MANN against the paper's equations written out for one episode, one row and one number at a time, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.easy import TINY, easy_store, shaken, small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.mann import MANN, in_order, presentations
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.data.augmentation import jittered
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.models.conv4.network import for_images
from torchreptile.models.losses import task_losses
from torchreptile.models.mann import least_used, lookup, write
from torchreptile.training.evaluation.measure import ADAPTATION_STREAM, measure

SMALL = {"mann_units": 9, "mann_slots": 7, "mann_width": 5, "mann_heads": 2}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begun(**changes: object) -> tuple[MANN, MetaState]:
    config: Config = small_config(**({"algorithm": "mann"} | SMALL | changes))
    algorithm = build_algorithm(config, TINY, torch.device("cpu"))
    assert isinstance(algorithm, MANN)
    return algorithm, algorithm.initial_state(shaken(algorithm.begin(0).params))


def sampled(tasks: int, shots: int, queries: int = 0) -> Episodes:
    return EpisodeSampler(easy_store(12, shape=TINY), 3, shots, queries, torch.float64).sample(tasks, seeded(0))


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))


def read_in_order(
    algorithm: MANN, params: dict[str, torch.Tensor], episodes: Episodes, order: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of support sets presented in ``order`` (T, S)."""
    x, labels = in_order(episodes.support_x, episodes.support_y, order)
    return algorithm.read_through(params, x, labels), labels


class PlainEpisode:
    """One episode, in the order of section 3: controller, least used rows, wipe, write, read, usage."""

    def __init__(self, params: dict[str, torch.Tensor], read_first: bool) -> None:
        self.read_first = read_first
        double = torch.float64
        self.p, self.units, self.slots, self.width, self.heads = params, 9, 7, 5, 2
        self.hidden, self.cell = torch.zeros(9, dtype=double), torch.zeros(9, dtype=double)
        self.reads = [torch.zeros(5, dtype=double) for _ in range(2)]
        self.rows = [torch.full((5,), 1e-6, dtype=double) for _ in range(7)]
        self.spread = [[1.0] + [0.0] * 6 for _ in range(2)]  # of each head's last reading
        self.usage = [1.0] + [0.0] * 6

    def step(self, image: torch.Tensor, last_label: int | None) -> torch.Tensor:
        p = self.p
        gates = p["image.weight"] @ (1 - image).flatten() + p["image.bias"]
        if last_label is not None:
            gates = gates + p["label.weight"][:, last_label]
        gates = gates + p["back.weight"] @ torch.cat([self.hidden, *self.reads])
        admit, forget, new, show = gates.split(self.units)
        self.cell = torch.sigmoid(forget) * self.cell + torch.sigmoid(admit) * torch.tanh(new)
        self.hidden = torch.sigmoid(show) * torch.tanh(self.cell)
        keys = torch.tanh(p["keys.weight"] @ self.hidden + p["keys.bias"]).split(self.width)
        alphas = torch.sigmoid(p["gates.weight"] @ self.hidden + p["gates.bias"]).tolist()

        vectors = keys
        if "vectors.weight" in p:
            vectors = torch.tanh(p["vectors.weight"] @ self.hidden + p["vectors.bias"]).split(self.width)
        before = list(self.rows)

        ranked = sorted(range(self.slots), key=lambda row: self.usage[row])
        chosen = ranked[: self.heads]
        self.rows[ranked[0]] = torch.zeros(self.width, dtype=torch.float64)
        usage = [0.99 * used for used in self.usage]
        for head in range(self.heads):
            for row in range(self.slots):
                weight = alphas[head] * self.spread[head][row] + (1 - alphas[head]) * (row in chosen)
                self.rows[row] = self.rows[row] + weight * vectors[head]
                usage[row] += weight
        for head in range(self.heads):
            raised = [math.exp(cosine(keys[head], row)) for row in (before if self.read_first else self.rows)]
            self.spread[head] = [value / sum(raised) for value in raised]
            self.reads[head] = sum(w * row for w, row in zip(self.spread[head], self.rows, strict=True))
            usage = [used + w for used, w in zip(usage, self.spread[head], strict=True)]
        self.usage = usage
        return p["head.weight"] @ torch.cat([self.hidden, *self.reads]) + p["head.bias"]


@pytest.mark.parametrize("variant", [(), ("mann_separate_write",), ("mann_read_first",)])
def test_a_whole_episode_is_the_papers(variant: tuple[str, ...]) -> None:
    """Logits and all state after 18 steps of 4 episodes, to 1e-10; the memory of 7 rows is overwritten on the way."""
    algorithm, state = begun(**dict.fromkeys(variant, True))
    episodes = sampled(4, shots=6)
    order = algorithm.draw(4, 18, seeded(3))
    logits, labels = read_in_order(algorithm, state.params, episodes, order)
    x, _ = in_order(episodes.support_x, episodes.support_y, order)
    network = algorithm.memory_network
    before = F.pad(F.one_hot(labels, 3).double()[:, :-1], (0, 0, 1, 0))
    _, after = network.present(state.params, x, before, network.fresh(x, 4))
    for task in range(4):
        plain, last_label = PlainEpisode(state.params, "mann_read_first" in variant), None
        for step in range(18):
            expected = plain.step(x[task, step], last_label)
            torch.testing.assert_close(logits[task, step], expected, rtol=0, atol=1e-10)
            last_label = int(labels[task, step])
        torch.testing.assert_close(after.memory[task], torch.stack(plain.rows), rtol=0, atol=1e-10)
        torch.testing.assert_close(after.usage[task], torch.tensor(plain.usage).double(), rtol=0, atol=1e-6)
        torch.testing.assert_close(after.read[task], torch.tensor(plain.spread).double(), rtol=0, atol=1e-6)


def test_the_gradient_is_the_slope() -> None:
    """Every parameter, along a random direction, against a central difference."""
    algorithm, state = begun()
    episodes, order = sampled(2, shots=3), algorithm.training_draw(2, 9, seeded(3))

    def loss(shift: float, name: str, direction: torch.Tensor) -> float:
        moved = state.params | {name: state.params[name] + shift * direction}
        return float(algorithm.losses(moved, episodes, order).mean())

    gradient = algorithm.meta_gradient(state, episodes, seeded(3)).gradient
    for name, g in gradient.items():
        direction = torch.randn(g.shape, generator=seeded(1), dtype=torch.float64)
        slope = (loss(1e-5, name, direction) - loss(-1e-5, name, direction)) / 2e-5
        assert float((g * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-9), name


def test_training_moves_images_and_measuring_does_not() -> None:
    """The same draws: with jitter the order is the same, and the loss is that of the moved images."""
    plain, state = begun(mann_jitter=0.0)
    moving = build_algorithm(plain.config.replace(mann_jitter=1.0), TINY, torch.device("cpu"))
    episodes = sampled(2, shots=3, queries=1)
    drawn = moving.training_draw(2, 9, seeded(3))
    assert drawn.shape == (2, 9, 4)
    x, y = in_order(episodes.support_x, episodes.support_y, drawn[..., 0].argsort(1))
    moved = jittered(x, drawn[..., 1:], 1.0)
    expected = task_losses(plain.read_through(state.params, moved, y), y)
    torch.testing.assert_close(moving.losses(state.params, episodes, drawn), expected, rtol=0, atol=1e-12)
    assert not torch.equal(expected, plain.losses(state.params, episodes, drawn[..., :1]))
    assert torch.equal(
        plain.predict(state, episodes, seeded(1)).inductive,
        moving.predict(state, episodes, seeded(1)).inductive,
    )


def test_images_are_drawn_with_replacement_on_request() -> None:
    """Each number chooses an image by itself: the loss is that of the images at these places, repeats included."""
    algorithm, state = begun(mann_replacement=True, mann_jitter=0.0)
    episodes, drawn = sampled(2, shots=3), algorithm.training_draw(2, 9, seeded(3))
    chosen = (drawn[..., 0] * 9).long()
    assert len(set(chosen[0].tolist())) < 9
    logits, labels = read_in_order(algorithm, state.params, episodes, chosen)
    torch.testing.assert_close(algorithm.losses(state.params, episodes, drawn), task_losses(logits, labels))


def test_reading_goes_by_cosine_alone() -> None:
    """A row's length does not matter, and weights sum to 1."""
    memory = torch.randn(2, 5, 3, generator=seeded(0), dtype=torch.float64)
    keys = torch.randn(2, 4, 3, generator=seeded(1), dtype=torch.float64)
    weights = lookup(keys, memory)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 4, dtype=torch.float64))
    stretched = memory * torch.tensor([1.0, 3.0, 0.2, 5.0, 1.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(lookup(2 * keys, stretched), weights, rtol=0, atol=1e-10)
    assert weights[1, 2, 3] == pytest.approx(
        math.exp(cosine(keys[1, 2], memory[1, 3])) / sum(math.exp(cosine(keys[1, 2], row)) for row in memory[1])
    )


def test_writing_wipes_the_least_used_row_alone() -> None:
    usage = torch.tensor([[0.5, 0.1, 0.9, 0.3]], dtype=torch.float64)
    rows = least_used(usage, 2)
    assert rows.tolist() == [[1, 3]]
    memory = torch.ones(1, 4, 2, dtype=torch.float64)
    keys = torch.tensor([[[10.0, 0.0], [0.0, 100.0]]], dtype=torch.float64)
    read = torch.tensor([[[1.0, 0, 0, 0], [0, 0, 1.0, 0]]], dtype=torch.float64)
    gates = torch.tensor([[[1.0], [0.25]]], dtype=torch.float64)  # the first head writes where it read
    written, spread = write(memory, keys, gates, read, rows)
    assert written.tolist() == [[[11.0, 1.0], [0.0, 75.0], [1.0, 26.0], [1.0, 76.0]]]
    assert spread.tolist() == [[[1.0, 0.0, 0.0, 0.0], [0.0, 0.75, 0.25, 0.75]]]


def test_a_label_is_not_seen_before_the_next_image() -> None:
    """Another label at step 7 leaves all predictions up to step 7 as they were, and changes the next."""
    algorithm, state = begun()
    episodes, order = sampled(3, shots=4), torch.arange(12).expand(3, 12)
    first, labels = read_in_order(algorithm, state.params, episodes, order)
    other = labels.clone()
    other[:, 7] = (other[:, 7] + 1) % 3
    second, _ = read_in_order(algorithm, state.params, replace(episodes, support_y=other), order)
    assert torch.equal(first[:, :8], second[:, :8])
    assert bool((first[:, 8] != second[:, 8]).any(1).all())


def test_an_image_is_not_seen_before_its_step() -> None:
    algorithm, state = begun()
    episodes, order = sampled(3, shots=4), torch.arange(12).expand(3, 12)
    x = episodes.support_x.clone()
    x[:, 7] = 1 - x[:, 7]
    first, _ = read_in_order(algorithm, state.params, episodes, order)
    second, _ = read_in_order(algorithm, state.params, replace(episodes, support_x=x), order)
    assert torch.equal(first[:, :7], second[:, :7])
    assert bool((first[:, 7] != second[:, 7]).any(1).all())


def test_a_query_is_the_next_image_after_the_support_set() -> None:
    """Told with the last label, and alone: logits equal those of the sequence that ends with it."""
    algorithm, state = begun()
    episodes, order = sampled(3, shots=2, queries=2), torch.arange(6).flip(0).expand(3, 6)
    logits = algorithm.adapt(state, episodes.support_x, episodes.support_y, order).inductive(episodes.query_x)
    x, y = in_order(episodes.support_x, episodes.support_y, order)
    for query in range(6):
        longer = replace(
            episodes,
            support_x=torch.cat([x, episodes.query_x[:, query : query + 1]], 1),
            support_y=torch.cat([y, episodes.query_y[:, query : query + 1]], 1),
        )
        sequence, _ = read_in_order(algorithm, state.params, longer, torch.arange(7).expand(3, 7))
        torch.testing.assert_close(logits[:, query], sequence[:, -1], rtol=0, atol=1e-10)


def test_presentations_count_up() -> None:
    labels = torch.tensor([[0, 1, 0, 0, 2, 1], [2, 2, 2, 1, 1, 0]])
    assert presentations(labels, 3).tolist() == [[1, 1, 2, 3, 1, 2], [1, 2, 3, 1, 2, 1]]


def test_accuracy_by_presentation_is_measured() -> None:
    """By hand over the same episodes; there is no transductive accuracy."""
    algorithm, state = begun()
    store = easy_store(12, images=4, shape=TINY)
    state = state.mapped(lambda t: t.float() if t is not state.inner.steps else t)
    result = measure(algorithm, state, EpisodeSampler(store, 3, 1, 1), 40, seed=5)
    assert result.transductive is None
    assert list(result.extra_metrics) == [f"presentation {number}" for number in (1, 2, 3, 4)]
    generator = seeded(5 ^ ADAPTATION_STREAM)
    drawn = EpisodeSampler(store, 3, 1, 1).sample(100, seeded(5))[:40]
    algorithm.predict(state, drawn, generator)
    extra = algorithm.extra_metrics(store)
    assert extra is not None
    episodes = extra.sampler.sample(100, generator)[:40]
    logits, labels = read_in_order(algorithm, state.params, episodes, algorithm.draw(40, 12, generator))
    hits: list[list[bool]] = [[], [], [], []]
    for guesses, truth in zip(logits.argmax(2).tolist(), labels.tolist(), strict=True):
        seen = [0, 0, 0]
        for guess, label in zip(guesses, truth, strict=True):
            hits[seen[label]].append(guess == label)
            seen[label] += 1
    means = [sum(each) / len(each) for each in hits]
    assert [accuracy.mean for accuracy in result.extra_metrics.values()] == pytest.approx(means, abs=1e-6)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="mann labels each query alone"):
        small_config(algorithm="mann", transductive=True)
    with pytest.raises(ConfigError, match="mann_slots is 3; it must be at least mann_heads"):
        small_config(algorithm="mann", mann_slots=3, mann_heads=4)
    with pytest.raises(ConfigError, match="cannot run Conv4"):
        build_algorithm(small_config(algorithm="mann"), TINY, torch.device("cpu"), network=for_images)
    with pytest.raises(ConfigError, match="precision is bf16"):
        build_algorithm(small_config(algorithm="mann", precision="bf16"), TINY, torch.device("cpu"))
