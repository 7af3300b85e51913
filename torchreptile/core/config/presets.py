"""Named settings: one constant per published table cell of Reptile, and what the other algorithms change in it.

Reptile's are from Nichol, Achiam, Schulman 2018, arXiv 1803.02999, appendix A; the others' from their own papers, named
where they stand. The published accuracies are in published.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A named set of settings: data set, shots and way as the name says (of functions the data set), for Reptile."""

    name: str
    config: Config


FIVE_WAY = Config()
TWENTY_WAY = Config().replace(way=20, inner_lr=5e-4, inner_batch=20, inner_steps=10, outer_steps=200_000, eval_batch=10)
MINI_FIVE_WAY = Config().replace(dataset="mini-imagenet", train_shots=15, inner_steps=8)
# Nothing was published for Reptile here: what the paper changed from 5-way to 20-way on Omniglot is changed alike.
MINI_TWENTY_WAY = MINI_FIVE_WAY.replace(way=20, inner_lr=5e-4, inner_batch=20, inner_steps=10, eval_batch=10)
# The paper's sine wave case study has 10 points, 32 steps and 1-64-64-1. The rest is the code's that was published with
# it: a training task is 50 points, passed through once by SGD, one task at a time.
SINE = Config().replace(
    dataset="sine", way=1, shots=10, train_shots=50, inner_optimizer="sgd", inner_lr=0.02, inner_batch=10,
    inner_steps=5, outer_steps=30_000, meta_batch=1, outer_step_size=0.1, eval_steps=32, eval_batch=0, queries=50,
)  # fmt: skip
# Finn et al. 2017, section 5.1: the waves, 10 points and the network are theirs, and 10 steps are those of their
# figure; for Reptile nothing was published here.
SINE_MAML = SINE.replace(dataset="sine-maml", mlp_units=40, mlp_activation="relu", eval_steps=10)
# Nobody knows how many rows own tables have: these take 20 of a task to train on, and 10 + 10 to measure.
TABLE = SINE.replace(train_shots=20, queries=10)
# Generated characters carry no published numbers: the settings are Omniglot's.
GLYPHS = {"dataset": "glyphs"}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("omniglot-1shot-5way", FIVE_WAY),
        Preset("omniglot-5shot-5way", FIVE_WAY.replace(shots=5)),
        Preset("omniglot-1shot-20way", TWENTY_WAY),
        Preset("omniglot-5shot-20way", TWENTY_WAY.replace(shots=5)),
        Preset("mini-imagenet-1shot-5way", MINI_FIVE_WAY),
        Preset("mini-imagenet-5shot-5way", MINI_FIVE_WAY.replace(shots=5, eval_batch=15)),
        Preset("mini-imagenet-1shot-20way", MINI_TWENTY_WAY),
        Preset("mini-imagenet-5shot-20way", MINI_TWENTY_WAY.replace(shots=5)),
        Preset("glyphs-1shot-5way", FIVE_WAY.replace(**GLYPHS)),
        Preset("glyphs-5shot-5way", FIVE_WAY.replace(shots=5, **GLYPHS)),
        Preset("glyphs-1shot-20way", TWENTY_WAY.replace(**GLYPHS)),
        Preset("glyphs-5shot-20way", TWENTY_WAY.replace(shots=5, **GLYPHS)),
        Preset("sine", SINE),
        Preset("sine-maml", SINE_MAML),
    )
}


def _large_images(config: Config) -> bool:
    """Whether mini-ImageNet's settings are meant, rather than Omniglot's: by the size of images, whoever's they are."""
    task = config.task
    return task.dataset == "mini-imagenet" or (bool(task.data) and task.own_image_size >= 64)


def _maml(config: Config) -> dict[str, Any]:
    """Finn, Abbeel, Levine 2017, appendix A.1; on the whole support set, moved by Adam at a constant 1e-3.

    Their code divides the inner loss by the shots once more, which is the learning rate's part here.
    """
    task, large = config.task, _large_images(config)
    if large:
        lr, steps, eval_steps, meta_batch, queries = 0.01, 5, 10, 4 if task.shots == 1 else 2, 15
    elif task.way < 20:
        lr, steps, eval_steps, meta_batch, queries = 0.4, 1, 3, 32, task.shots
    else:
        lr, steps, eval_steps, meta_batch, queries = 0.1, 5, 5, 16, task.shots
    return {
        "train_shots": 0,
        "train_queries": queries,
        "inner_optimizer": "sgd",
        "inner_lr": lr / task.shots,
        "inner_batch": 0,
        "inner_steps": steps,
        "eval_steps": eval_steps,
        "eval_batch": 0,
        "queries": task.shots,  # in evaluation as many as there are shots
        "outer_steps": 60_000,
        "meta_batch": meta_batch,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-3,
        "outer_clip": 10.0 if large else 0.0,
    }


def _meta_sgd(config: Config) -> dict[str, Any]:
    """Li et al. 2017, section 4.2: MAML's frame with one inner step; rates begin within 0.005 to 0.1."""
    lr = 0.01 if _large_images(config) else 0.1
    return _maml(config) | {"inner_steps": 1, "eval_steps": 1, "inner_lr": lr}


def _matching(config: Config) -> dict[str, Any]:
    """Training tasks like those of the test (Vinyals et al. 2016, section 2.2). No optimiser was published with it:
    15 queries per class and one task per step are Ravi and Larochelle's (ICLR 2017), Adam at 1e-3 is Chen et al.'s
    (ICLR 2019), whose code scales the cosines by 100; 10 and the annealing are ours."""
    return {
        "attention_scale": 10.0, "train_shots": 0, "train_queries": 15, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_steps": 75_000,
        "inner_optimizer": "sgd", "inner_lr": 0.01,
    }  # fmt: skip


def _protonet(config: Config) -> dict[str, Any]:
    """Snell et al. 2017, sections 3.1 and 3.2: more classes than in the test, as many shots, Adam halved every 2,000
    tasks. They stopped when the validation loss did; by 20,000 steps nothing moves any more."""
    task, large = config.task, _large_images(config)
    way = (20 if task.shots > 1 or task.way > 5 else 30) if large else 60
    return {
        "train_way": way if task.dataset != "folder" else 0,  # nobody knows how many classes own images have
        "train_shots": 0, "train_queries": 15 if large else 5, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3, "outer_halve_every": 2_000,
        "outer_steps": 20_000, "inner_optimizer": "sgd", "inner_lr": 0.01,
    }  # fmt: skip


def _pretrained(config: Config) -> dict[str, Any]:
    """Chen et al. 2019 and its code: mini-batches of 16 images, Adam at 1e-3, 5 passes over Omniglot's training images
    and 400 over mini-ImageNet's; in a task 100 passes of SGD at 0.01 over the support set, 4 images at a time."""
    task = config.task
    # Their Omniglot is divided as Vinyals et al. divide it, so that 5 passes are over 4,112 classes.
    division = {"split_scheme": "vinyals"} if task.dataset == "omniglot" else {}
    return division | {
        "train_way": 16, "train_shots": 1, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3,
        "outer_steps": 960_000 if _large_images(config) else 25_700,
        "inner_optimizer": "sgd", "inner_lr": 0.01, "eval_steps": 25 * task.way * task.shots, "eval_batch": 4,
    }  # fmt: skip


def _scratch(config: Config) -> dict[str, Any]:
    """Reptile's steps in a task, with an optimiser that knows nothing yet; one outer step, for there is none to do."""
    return {"inner_state": "reset", "outer_steps": 1, "meta_batch": 1}


def _mann(config: Config) -> dict[str, Any]:
    """Santoro et al. 2016: episodes of 10 images per class, 16 at a time, 100,000 of those; images moved and turned.

    The optimiser is Adam at 1e-3, as in the public implementations that reach the paper's numbers; the paper's own
    is RMSProp.
    """
    return {
        "train_shots": 10,
        "mann_jitter": 1.0,
        "meta_batch": 16,
        "outer_steps": 100_000,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-4,
        "outer_clip": 10.0,
        "outer_clip_by": "norm",
    }


def _meta_lstm(config: Config) -> dict[str, Any]:
    """Ravi and Larochelle 2017: training tasks of as many shots as are tested, 15 queries per class, one at a time.

    Every update is on the whole support set.
    """
    updates = 12 if config.task.shots == 1 else 5
    return {
        "train_shots": 0,
        "train_queries": 15,
        "queries": 15,
        "inner_batch": 0,
        "inner_steps": updates,
        "eval_steps": updates,
        "eval_batch": 0,
        "meta_batch": 1,
        "outer_steps": 50_000,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-3,
        "outer_clip": 0.25,
        "outer_clip_by": "norm",
    }


# What an algorithm's own publication has in place of Reptile's settings, for the task of a preset.
METHOD_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "maml": _maml,
    "fomaml": _maml,
    "anil": _maml,  # Raghu et al. 2020 keep MAML's settings
    "meta-sgd": _meta_sgd,
    "matching": _matching,
    "protonet": _protonet,
    "pretrained": _pretrained,
    "scratch": _scratch,
    "mann": _mann,
    "meta-lstm": _meta_lstm,
}


def _maml_for_functions(config: Config) -> dict[str, Any]:
    """Finn et al. 2017, section 5.1: one step of 0.01 on 10 points, moved by Adam. 25 tasks at a time, 70,000 of those,
    and Adam's 1e-3 are their code's."""
    return {
        "train_shots": 0, "train_queries": config.evaluation.queries,
        "inner_optimizer": "sgd", "inner_lr": 0.01, "inner_batch": 0, "inner_steps": 1, "eval_batch": 0,
        "outer_steps": 70_000, "meta_batch": 25,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3,
    }  # fmt: skip


def _meta_lstm_for_functions(config: Config) -> dict[str, Any]:
    """As for images with more than one shot; nothing was published for functions."""
    return _meta_lstm(config) | {"train_queries": config.evaluation.queries, "queries": config.evaluation.queries}


# The same where tasks are functions.
FUNCTION_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "maml": _maml_for_functions,
    "fomaml": _maml_for_functions,
    "anil": _maml_for_functions,
    "meta-sgd": _maml_for_functions,  # Li et al. 2017, section 4.1, compare it so
    "scratch": _scratch,
    "meta-lstm": _meta_lstm_for_functions,
}


def for_algorithm(algorithm: str, config: Config) -> Config:
    """The same task as in ``config`` for that algorithm, with the settings published for it."""
    settings = FUNCTION_SETTINGS if config.task.regression else METHOD_SETTINGS
    changes = settings[algorithm](config) if algorithm in settings else {}
    return config.replace(algorithm=algorithm, **changes)


def preset(name: str, algorithm: str = "reptile") -> Config:
    """The settings of the preset ``name``, for that algorithm.

    Raises:
        ConfigError: there is no such preset or algorithm.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name}; the presets are {', '.join(PRESETS)}")
    return for_algorithm(algorithm, PRESETS[name].config)
