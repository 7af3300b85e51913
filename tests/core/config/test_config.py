"""Settings: to JSON and back, and every bad value refused with its name, the value and what would work."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import owner_of
from torchreptile.core.errors import ConfigError, TorchReptileError

CHANGED = {
    "weights": "omniglot-5way", "augment": 0.5, "mirror": True,
    "dataset": "folder", "data": "/pictures", "image_size": 32, "grey": True, "split_ratio": "0.5/0.3/0.2",
    "resize": "bicubic", "exclude_duplicates": True, "split_scheme": "seed", "split_seed": 7,
    "way": 20, "shots": 5, "train_shots": 9,
    "inner_optimizer": "sgd", "inner_loss": "sum", "inner_lr": 0.25, "inner_batch": 3, "inner_steps": 11,
    "replacement": True,
    "inner_state": "carry", "algorithm": "foml", "foml_tail": 2, "outer_steps": 17, "meta_batch": 2,
    "outer_optimizer": "adam", "outer_clip": 2.5, "outer_clip_by": "norm",
    "outer_step_size": 0.5, "outer_step_size_final": 0.125, "outer_halve_every": 5,
    "inverted": True, "max_minutes": 1.5, "eval_steps": 3, "eval_batch": 4,
    "eval_episodes": 99, "queries": 2, "transductive": True, "seed": 12, "device": "cpu", "execution": "loop",
    "precision": "bf16", "task_chunk": 3, "unrolled_steps": 2, "monitor_every": 5, "monitor_episodes": 6,
    "save_minutes": 0.1,
}  # fmt: skip
FOR_OTHER_KINDS_OF_TASKS = {
    "train_queries", "train_way", "finetune_steps", "table", "targets", "data_root", "mlp_units", "mlp_layers",
    "mlp_activation", "shape",
}  # fmt: skip  # settings that do not go with CHANGED's


def test_the_defaults_are_the_published_omniglot_settings() -> None:
    c = Config()
    assert (c.inner.inner_optimizer, c.inner.inner_lr, c.inner.inner_batch, c.inner.inner_steps) == (
        "adam",
        1e-3,
        10,
        5,
    )
    assert (c.task.way, c.task.shots, c.task.train_shots) == (5, 1, 10)
    assert (c.outer.outer_step_size, c.outer.outer_step_size_final, c.outer.meta_batch) == (1.0, 0.0, 5)
    assert (c.outer.outer_steps, c.evaluation.eval_steps, c.evaluation.eval_batch) == (100_000, 50, 5)
    assert (c.evaluation.eval_episodes, c.evaluation.queries, c.inner.inner_state) == (10_000, 1, "share")


def test_round_trip_with_every_setting_changed() -> None:
    config = Config().replace(**CHANGED)
    assert set(CHANGED) | FOR_OTHER_KINDS_OF_TASKS == set(config.by_name())
    for group in dataclasses.fields(Config):
        for name, value in dataclasses.asdict(getattr(config, group.name)).items():
            if name in FOR_OTHER_KINDS_OF_TASKS:
                continue
            assert value == CHANGED[name]
            usual = config.row.settings() if group.name == "method" else getattr(Config(), group.name)
            assert value != getattr(usual, name), f"{name} is not changed"
    assert Config.from_json(config.to_json()) == config
    assert Config.from_json(Config().to_json()) == Config()


def test_a_folder_of_the_data_set_is_for_the_one_that_people_bring() -> None:
    assert Config().replace(dataset="mini-imagenet", data_root="here").task.data_root == "here"
    for dataset in ("omniglot", "glyphs"):
        with pytest.raises(ConfigError, match=f"data_root is here, but .* the data set is {dataset}; leave it out"):
            Config().replace(dataset=dataset, data_root="here")


# A setting, a value that cannot work, and what the message must say of what would.
BAD_NUMBERS = [
    ("way", 1, "at least 2"),
    ("shots", 0, "at least 1"),
    ("train_shots", -1, "at least 0"),
    ("inner_lr", 0.0, "greater than 0"),
    ("inner_lr", -0.5, "greater than 0"),
    ("inner_lr", math.nan, "greater than 0"),
    ("inner_lr", math.inf, "greater than 0"),
    ("inner_batch", -1, "at least 0"),
    ("inner_steps", 0, "at least 1"),
    ("foml_tail", -1, "at least 0"),
    ("fce_reads", -1, "at least 0"),
    ("attention_scale", 0.0, "greater than 0"),
    ("train_way", 1, "at least 2"),
    ("finetune_steps", -1, "at least 0"),
    ("outer_halve_every", -1, "at least 0"),
    ("outer_clip", -1.0, "at least 0"),
    ("outer_steps", 0, "at least 1"),
    ("meta_batch", 0, "at least 1"),
    ("outer_step_size", -1.0, "at least 0"),
    ("outer_step_size", math.nan, "at least 0"),
    ("outer_step_size_final", -0.1, "at least 0"),
    ("max_minutes", -1.0, "at least 0"),
    ("max_minutes", math.inf, "at least 0"),
    ("eval_steps", -1, "at least 0"),
    ("eval_batch", -1, "at least 0"),
    ("eval_episodes", 1, "at least 2"),
    ("queries", 0, "at least 1"),
    ("seed", -1, "at least 0"),
    ("monitor_every", -1, "at least 0"),
    ("monitor_episodes", 1, "at least 2"),
    ("task_chunk", -1, "at least 0"),
    ("unrolled_steps", -1, "at least 0"),
    ("save_minutes", -0.5, "at least 0"),
]
BAD_CHOICES = [
    ("inner_optimizer", "adamw", "adam, sgd"),
    ("inner_state", "keep", "share, carry, reset"),
    ("algorithm", "maml2", "reptile, foml, maml"),
    ("execution", "fast", "auto, loop, grouped, matmul, vmap, compiled, native"),
    ("precision", "fp16", "fp32, tf32, bf16"),
]


@pytest.mark.parametrize(("name", "value", "works"), BAD_NUMBERS + BAD_CHOICES)
def test_a_bad_value_is_refused(name: str, value: object, works: str) -> None:
    owner = {"algorithm": owner} if (owner := owner_of(name)) else {}
    queries = {"train_queries": 1} if owner == {"algorithm": "matching"} else {}
    with pytest.raises(ConfigError) as caught:
        Config().replace(**{**owner, **queries, name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is ")
    assert str(value) in message
    assert works in message
    assert "\n" not in message
    assert isinstance(caught.value, TorchReptileError)


@pytest.mark.parametrize(
    ("name", "value", "works"),
    [
        *BAD_CHOICES,
        ("way", "5", "int"),
        ("way", 5.0, "int"),
        ("way", True, "int"),
        ("transductive", 1, "bool"),
        ("inner_lr", "fast", "float"),
        ("dataset", None, "str"),
        ("way", 1, "at least 2"),
        ("inner_optimizer", [], "adam, sgd"),
    ],
)
def test_a_bad_value_in_json_is_refused(name: str, value: object, works: str) -> None:
    groups = json.loads(Config().to_json())
    next(group for group in groups.values() if name in group)[name] = value
    with pytest.raises(ConfigError, match=f"{name} is .*{works}"):
        Config.from_json(json.dumps(groups))


def test_a_whole_number_is_a_float_in_json() -> None:
    groups = json.loads(Config().to_json())
    groups["outer"]["outer_step_size"] = 1
    assert Config.from_json(json.dumps(groups)) == Config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foml_tail": 2}, "foml_tail is 2, but algorithm is reptile"),
        ({"algorithm": "foml", "foml_tail": 10}, r"foml_tail is 10; it must be smaller than train_shots \(10\)"),
        ({"algorithm": "foml", "foml_tail": 1, "inner_steps": 1}, "foml_tail needs inner_steps of at least 2"),
        ({"inner_loss": "sum"}, "inner_loss is sum, which adam minimises anyway"),
        (
            {"algorithm": "maml", "inner_optimizer": "sgd", "inner_loss": "sum", "train_queries": 1},
            "inner_loss is sum, but maml goes down the mean",
        ),
        ({"algorithm": "maml", "train_queries": 1}, "inner_optimizer is adam; maml needs plain sgd"),
        ({"algorithm": "maml", "inner_optimizer": "sgd"}, "train_queries is 0; maml learns from queries"),
        ({"train_queries": 1}, "train_queries is 1, but reptile learns from no queries"),
        ({"train_way": 10}, "train_way is 10, but reptile is trained with the way it is tested with"),
        ({"fce_reads": 2}, "fce_reads is 2, but algorithm is reptile"),
        ({"attention_scale": 2.0}, "attention_scale is 2.0, but algorithm is reptile"),
        ({"pretrained_head": "cosine"}, "pretrained_head is cosine, but algorithm is reptile"),
        ({"mann_jitter": 0.5}, "mann_jitter is 0.5, but algorithm is reptile; it is for mann"),
        (
            {"algorithm": "maml", "meta_lstm_units": 3},
            "meta_lstm_units is 3, but algorithm is maml; it is for meta-lstm",
        ),
        ({"finetune_steps": 2}, "finetune_steps is 2, but reptile fine-tunes no embedding"),
        ({"algorithm": "protonet", "train_queries": 1, "finetune_steps": 2}, "inner_optimizer is adam; finetune_steps"),
        ({"algorithm": "matching"}, "train_queries is 0; matching learns from queries and needs at least 1"),
        ({"algorithm": "pretrained", "train_queries": 1}, "train_queries is 1, but pretrained learns from no queries"),
        ({"replacement": True, "inner_batch": 51}, "inner_batch is 51; .* at most the 50 images of a task"),
        ({"replacement": True, "algorithm": "foml", "foml_tail": 5, "inner_batch": 26}, "at most the 25 images"),
    ],
)
def test_a_combination_that_cannot_work_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config().replace(**changes)


def test_combinations_at_the_limit_work() -> None:
    Config().replace(algorithm="foml", foml_tail=9, inner_steps=2)
    Config().replace(replacement=True, inner_batch=50)
    Config().replace(inner_batch=51)  # cycling: a batch may span passes


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting learning_rate; the settings are .*inner_lr"):
        Config().replace(learning_rate=0.1)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"task": {}}'])
def test_text_that_is_not_settings_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Config.from_json(text)


def test_an_unknown_name_in_json_is_refused() -> None:
    groups = json.loads(Config().to_json())
    groups["inner"]["momentum"] = 0.9
    with pytest.raises(ConfigError, match="momentum"):
        Config.from_json(json.dumps(groups))
    groups["inner"] = [1]
    with pytest.raises(ConfigError, match="InnerConfig"):
        Config.from_json(json.dumps(groups))


def test_zero_means_derived() -> None:
    assert Config().replace(train_shots=0, shots=5).task.images_per_class == 5
    assert Config().replace(train_shots=15).task.images_per_class == 15
    assert Config().replace(outer_steps=1000).monitor_every == 50
    assert Config().replace(outer_steps=3).monitor_every == 1
    assert Config().replace(monitor_every=7).monitor_every == 7


def test_the_sizes_of_mini_batches_resolved() -> None:
    config = Config().replace(way=5, shots=1, train_shots=15, inner_batch=10, eval_batch=4)
    assert (config.training_batch, config.evaluation_batch) == (10, 4)
    config = config.replace(inner_batch=0, eval_batch=0)
    assert (config.training_batch, config.evaluation_batch, config.adapting_batch) == (75, 5, 5)
    assert config.replace(inner_optimizer="sgd").adapting_batch == 0  # its step is that of the mean
    tail = config.replace(algorithm="foml", foml_tail=5)
    assert tail.training_batch == 50  # the tail is kept apart


def test_replace_leaves_the_original() -> None:
    config = Config()
    assert config.replace(way=20) != config
    assert config == Config()
