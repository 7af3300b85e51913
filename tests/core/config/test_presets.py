"""The presets against the published table, written down here a second time from the paper."""

from __future__ import annotations

import pytest

from torchreptile.core.config.algorithm_table import algorithm_names, algorithm_row
from torchreptile.core.config.presets import PRESETS, for_algorithm, preset
from torchreptile.core.errors import ConfigError
from torchreptile.training.evaluation.published import published, published_measure

# name: inner lr, inner batch, inner steps, train shots, outer steps, eval batch, shots, way (appendix A, tables 3-4)
SETTINGS = {
    "omniglot-1shot-5way": (1e-3, 10, 5, 10, 100_000, 5, 1, 5),
    "omniglot-5shot-5way": (1e-3, 10, 5, 10, 100_000, 5, 5, 5),
    "omniglot-1shot-20way": (5e-4, 20, 10, 10, 200_000, 10, 1, 20),
    "omniglot-5shot-20way": (5e-4, 20, 10, 10, 200_000, 10, 5, 20),
}
# algorithm, way, shots: transductive and inductive percent on Omniglot
ACCURACIES = {
    ("reptile", 5, 1): (97.68, 95.39),
    ("reptile", 5, 5): (99.48, 98.90),
    ("reptile", 20, 1): (89.43, 88.14),
    ("reptile", 20, 5): (97.12, 96.65),
    ("foml", 5, 1): (None, None),
    ("fomaml", 5, 1): (98.3, None),
    ("fomaml", 5, 5): (99.2, None),
    ("fomaml", 20, 1): (89.4, None),
    ("fomaml", 20, 5): (97.9, None),
    ("maml", 5, 1): (98.7, None),
    ("maml", 5, 5): (99.9, None),
    ("maml", 20, 1): (95.8, None),
    ("maml", 20, 5): (98.9, None),
    ("meta-sgd", 5, 1): (99.53, None),
    ("meta-sgd", 20, 5): (98.97, None),
    ("anil", 5, 1): (None, None),
    ("anil", 20, 1): (96.2, None),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_the_published_ones(name: str) -> None:
    for found, dataset in ((name, "omniglot"), (name.replace("omniglot", "glyphs"), "glyphs")):
        c = preset(found)
        i, t, e = c.inner, c.task, c.evaluation
        settings = (i.inner_lr, i.inner_batch, i.inner_steps, t.train_shots, c.outer.outer_steps, e.eval_batch)
        assert (*settings, t.shots, t.way) == SETTINGS[name]
        assert (t.dataset, c.method.algorithm, i.inner_optimizer, i.replacement) == (dataset, "reptile", "adam", False)
        assert (c.outer.outer_step_size, c.outer.outer_step_size_final, c.outer.meta_batch) == (1.0, 0.0, 5)
        assert (e.eval_steps, e.eval_episodes, e.queries) == (50, 10_000, 1)


MINI_SETTINGS = {  # the 20-way ones follow the paper's Omniglot 20-way; see presets.py
    "mini-imagenet-1shot-5way": (1e-3, 10, 8, 15, 100_000, 5, 1, 5),
    "mini-imagenet-5shot-5way": (1e-3, 10, 8, 15, 100_000, 15, 5, 5),
    "mini-imagenet-1shot-20way": (5e-4, 20, 10, 15, 100_000, 10, 1, 20),
    "mini-imagenet-5shot-20way": (5e-4, 20, 10, 15, 100_000, 10, 5, 20),
}
MINI_ACCURACIES = {  # table 1: transductive and not
    ("reptile", 5, 1): (49.97, 47.07),
    ("reptile", 5, 5): (65.99, 62.74),
    ("fomaml", 5, 1): (48.07, None),
    ("fomaml", 5, 5): (63.15, None),
    ("maml", 5, 1): (48.70, None),
    ("maml", 5, 5): (63.11, None),
    ("meta-sgd", 5, 1): (50.47, None),
    ("reptile", 20, 1): (None, None),
}


@pytest.mark.parametrize("name", MINI_SETTINGS)
def test_settings_for_mini_imagenet(name: str) -> None:
    c = preset(name)
    i, t, e = c.inner, c.task, c.evaluation
    settings = (i.inner_lr, i.inner_batch, i.inner_steps, t.train_shots, c.outer.outer_steps, e.eval_batch)
    assert (*settings, t.shots, t.way) == MINI_SETTINGS[name]
    assert (t.dataset, t.resize, c.outer.meta_batch, e.eval_steps) == ("mini-imagenet", "auto", 5, 50)
    assert (c.outer.outer_step_size, c.outer.outer_step_size_final) == (1.0, 0.0)


@pytest.mark.parametrize("cell", MINI_ACCURACIES)
def test_published_accuracies_on_mini_imagenet(cell: tuple[str, int, int]) -> None:
    algorithm, way, shots = cell
    for transductive, expected in zip((True, False), MINI_ACCURACIES[cell], strict=True):
        found = published(algorithm, "mini-imagenet", way, shots, transductive)
        assert (found.accuracy if found else None) == expected


@pytest.mark.parametrize("cell", ACCURACIES)
def test_published_accuracies(cell: tuple[str, int, int]) -> None:
    algorithm, way, shots = cell
    for transductive, expected in zip((True, False), ACCURACIES[cell], strict=True):
        found = published(algorithm, "omniglot", way, shots, transductive)
        assert (found.accuracy if found else None) == expected


# The MAML paper's appendix A.1: preset, inner lr, steps, evaluation steps, meta-batch, queries, clip
MAML_SETTINGS = [
    ("omniglot-1shot-5way", 0.4, 1, 3, 32, 1, 0.0),
    ("omniglot-5shot-5way", 0.08, 1, 3, 32, 5, 0.0),  # 0.4 on a loss that its code divides by the shots
    ("omniglot-1shot-20way", 0.1, 5, 5, 16, 1, 0.0),
    ("mini-imagenet-1shot-5way", 0.01, 5, 10, 4, 15, 10.0),
    ("mini-imagenet-5shot-5way", 0.002, 5, 10, 2, 15, 10.0),
]


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "anil"])
@pytest.mark.parametrize(("name", "lr", "steps", "eval_steps", "meta_batch", "queries", "clip"), MAML_SETTINGS)
def test_settings_of_maml(
    algorithm: str, name: str, lr: float, steps: int, eval_steps: int, meta_batch: int, queries: int, clip: float
) -> None:
    c = preset(name, algorithm)
    assert (c.method.algorithm, c.inner.inner_optimizer) == (algorithm, "sgd")
    assert c.inner.inner_lr == pytest.approx(lr)
    assert (c.inner.inner_steps, c.evaluation.eval_steps, c.outer.meta_batch) == (steps, eval_steps, meta_batch)
    assert (c.task.train_queries, c.task.images_per_class) == (queries, c.task.shots)
    assert (c.inner.inner_batch, c.evaluation.eval_batch, c.evaluation.queries) == (0, 0, c.task.shots)
    o = c.outer
    assert (o.outer_optimizer, o.outer_step_size, o.outer_step_size_final) == ("adam", 1e-3, 1e-3)
    assert (o.outer_steps, o.outer_clip, o.outer_clip_by) == (60_000, clip, "value")


def test_settings_of_meta_sgd() -> None:
    c = preset("omniglot-1shot-5way", "meta-sgd")
    assert (c.inner.inner_steps, c.evaluation.eval_steps, c.inner.inner_lr) == (1, 1, 0.1)
    assert (c.outer.meta_batch, c.outer.outer_optimizer) == (32, "adam")


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_own_images_as_large_as_mini_imagenets_get_its_settings(algorithm: str) -> None:
    """But for the width of training tasks, for which nobody knows whether own images have enough classes."""
    mini, own = preset("mini-imagenet-1shot-5way"), preset("omniglot-1shot-5way").replace(data="own")
    its, theirs = for_algorithm(algorithm, mini), for_algorithm(algorithm, mini.replace(data="own"))
    assert theirs.inner == its.inner
    assert theirs.outer == its.outer
    assert theirs.evaluation == its.evaluation
    if algorithm in ("maml", "anil", "meta-sgd"):
        small = for_algorithm(algorithm, own.replace(grey=True, image_size=28))
        assert small.inner == for_algorithm(algorithm, preset("omniglot-1shot-5way")).inner != its.inner


def test_manns_published_accuracies_are_those_of_presentations() -> None:
    """They stand beside those alone, whatever tables of the field call them."""
    for shots, accuracy in ((1, 82.8), (5, 94.9)):
        found = published("mann", "omniglot", 5, shots, transductive=False)
        assert found is not None
        assert found.accuracy == accuracy
        assert published_measure("mann", "omniglot", 5, shots, "inductive") is None
        its = published_measure("mann", "omniglot", 5, shots, algorithm_row("mann").quoted[shots])
        assert its is not None
        assert its.accuracy == accuracy


def test_nothing_was_published_for_generated_characters() -> None:
    for way in (5, 20):
        assert published("reptile", "glyphs", way, 1, True) is None


def test_every_preset_is_named_by_its_key() -> None:
    assert len(PRESETS) >= 8
    for name, found in PRESETS.items():
        assert found.name == name
        assert preset(name) == found.config
        task = found.config.task
        assert name == task.dataset if task.regression else f"{task.shots}shot-{task.way}way" in name


def test_an_unknown_preset_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match="unknown preset omniglot; the presets are omniglot-1shot-5way, "):
        preset("omniglot")


# Published accuracies of the metric learners and the baselines, inductive: 5-way 1- and 5-shot, then 20-way.
OMNIGLOT_METRIC = {
    "matching": (98.1, 98.9, 93.8, 98.5),
    "matching fine-tuned": (97.9, 98.7, 93.5, 98.7),
    "protonet": (98.8, 99.7, 96.0, 98.9),
    "pretrained": (94.89, 99.12, None, None),
    "pretrained cosine": (95.41, 99.38, None, None),
    "scratch": (None, None, None, None),
}
MINI_METRIC = {
    "matching": (43.40, 51.09),
    "matching FCE": (43.56, 55.31),
    "protonet": (49.42, 68.20),
    "pretrained": (42.11, 62.53),
    "pretrained cosine": (48.24, 66.43),
}


@pytest.mark.parametrize("variant", OMNIGLOT_METRIC)
def test_published_accuracies_of_metric_learners(variant: str) -> None:
    cells = [("omniglot", way, shots) for way in (5, 20) for shots in (1, 5)]
    wanted = [*OMNIGLOT_METRIC[variant], *MINI_METRIC.get(variant, ())]
    if variant in MINI_METRIC:
        cells += [("mini-imagenet", 5, shots) for shots in (1, 5)]
    for cell, accuracy in zip(cells, wanted, strict=True):
        found = published(variant, *cell, transductive=False)
        assert (found.accuracy if found else None) == accuracy
        assert published(variant, *cell, transductive=True) is None


def test_settings_of_prototypical_networks() -> None:
    """Snell et al. 2017, sections 3.1 and 3.2."""
    for name, way, shots, queries in (
        ("omniglot-1shot-5way", 60, 1, 5),
        ("omniglot-5shot-20way", 60, 5, 5),
        ("mini-imagenet-1shot-5way", 30, 1, 15),
        ("mini-imagenet-5shot-5way", 20, 5, 15),
    ):
        c = preset(name, "protonet")
        assert (c.task.training_way, c.task.images_per_class, c.task.train_queries) == (way, shots, queries)
        assert (c.outer.outer_optimizer, c.outer.meta_batch) == ("adam", 1)
        assert [c.outer.step_size_at(0.5, step) for step in (0, 2000, 4000)] == [1e-3, 5e-4, 2.5e-4]


@pytest.mark.parametrize("name", [name for name, found in PRESETS.items() if not found.config.task.regression])
@pytest.mark.parametrize("algorithm", ["matching", "protonet", "pretrained", "scratch"])
def test_every_preset_is_for_every_algorithm(name: str, algorithm: str) -> None:
    own, plain = preset(name, algorithm), preset(name)
    assert (own.task.way, own.task.shots, own.task.dataset) == (plain.task.way, plain.task.shots, plain.task.dataset)
    assert own.method.algorithm == own.variant == algorithm


def test_what_is_done_in_a_task_is_said() -> None:
    matching = preset("omniglot-1shot-5way", "matching")
    tuned = matching.replace(finetune_steps=7)
    assert (matching.variant, matching.adaptation) == ("matching", "no fine-tuning")
    assert (tuned.variant, tuned.adaptation) == ("matching fine-tuned", "embedding fine-tuned by 7 steps")
    assert preset("omniglot-1shot-5way").adaptation == "50 inner steps"


def test_a_margin_that_was_not_printed_is_not_shown() -> None:
    shown = [str(published(name, "omniglot", 5, 1, transductive=False)) for name in ("matching", "reptile")]
    assert shown == ["98.10%", "95.39% ± 0.09"]
