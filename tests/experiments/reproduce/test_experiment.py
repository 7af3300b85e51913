"""The experiments of the papers: which settings are trained, and what is measured of them."""

from __future__ import annotations

import pytest

from torchreptile.core.config.presets import preset
from torchreptile.core.errors import ConfigError
from torchreptile.experiments.reproduce import EXPERIMENTS, find_experiment
from torchreptile.experiments.reproduce.experiment import Measurement
from torchreptile.experiments.reproduce.minibatch_overlap import SWEEPS, USUAL
from torchreptile.experiments.reproduce.table_rows import PUBLISHED


def test_every_published_cell_belongs_to_one_experiment() -> None:
    covered = [
        (arm.config.replace(finetune_steps=asked.finetune_steps).variant, arm.config.task.dataset,
         arm.config.task.way, asked.shots)
        for one in EXPERIMENTS.values()
        if one.kind == "row"
        for arm in one.arms
        for asked in arm.measurements
    ]  # fmt: skip
    assert len(set(covered)) == len(covered)
    assert set(covered) == {key[:4] for key in PUBLISHED}


@pytest.mark.parametrize(("name", "data"), [("omniglot-5way", "omniglot"), ("mini-imagenet-5way", "mini-imagenet")])
def test_one_training_with_the_published_settings_gives_a_row(name: str, data: str) -> None:
    (arm,) = find_experiment(name).arms
    assert arm.config == preset(f"{data}-1shot-5way")
    five = preset(f"{data}-5shot-5way").evaluation
    assert arm.measurements == (Measurement(1, 50, 5), Measurement(5, five.eval_steps, five.eval_batch))


def test_what_is_trained_with_its_shots_has_a_training_for_each() -> None:
    one, five = find_experiment("maml-omniglot-5way").arms
    assert (one.config, five.config) == (preset("omniglot-1shot-5way", "maml"), preset("omniglot-5shot-5way", "maml"))


def test_combinations_have_disjoint_batches_and_as_many_steps_as_gradients() -> None:
    arms = {arm.label: arm.config for arm in find_experiment("gradient-combinations").arms}
    assert len(arms) == 10
    for label, config in arms.items():
        gradients = int(label.split("g")[-1][0])
        assert config.inner.inner_steps == gradients
        assert config.task.way * config.task.images_per_class == 25 * gradients
        assert config.method.algorithm == ("foml" if label in ("g2", "g3", "g4") else "reptile")
        assert config.outer.outer_step_size == 0.25 / (gradients if "/" in label else 1)
        assert (config.inner.inner_optimizer, config.inner.inner_lr, config.outer.meta_batch) == ("sgd", 3e-3, 1)
        assert config.inner.inner_loss == "sum"


def test_the_sweeps_change_one_setting_at_a_time() -> None:
    one = find_experiment("minibatch-overlap")
    assert len({arm.name for arm in one.arms}) == len(one.arms) == 6 * (6 + 3) + 4 + 4
    assert {arm.config.method.foml_tail for arm in one.arms if arm.label.startswith("separate")} == {5}
    for setting, values in SWEEPS.items():
        assert float(getattr(USUAL.outer if setting == "outer_step_size" else USUAL.inner, setting)) in values


def test_a_budget_is_a_share_of_the_outer_steps() -> None:
    shortened = find_experiment("omniglot-20way").shortened(0.25)
    assert shortened.arms[0].config == preset("omniglot-1shot-20way").replace(outer_steps=50_000)
    assert find_experiment("omniglot-5way").shortened(0.07).arms[0].config.outer.outer_steps == 7_000
    assert find_experiment("protonet-omniglot-5way").shortened(0.1).arms[0].config.outer.outer_halve_every == 200
    for share in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="a share of the published outer steps, above 0 and at most 1"):
            find_experiment("omniglot-20way").shortened(share)


def test_a_short_training_looks_at_itself_no_more_often_than_makes_sense() -> None:
    def often(name: str, share: float) -> int:
        return find_experiment(name).shortened(share).arms[0].config.monitor_every

    assert often("minibatch-overlap", 1) == 10_000
    assert often("minibatch-overlap", 0.05) == 500
    assert often("minibatch-overlap", 0.005) == 100
    assert (often("omniglot-5way", 1), often("omniglot-5way", 0.25), often("omniglot-5way", 0.01)) == (5000, 1250, 100)


def test_unknown_names_are_refused_with_what_comes_close() -> None:
    with pytest.raises(ConfigError, match="did you mean omniglot-5way or"):
        find_experiment("omniglot")
    with pytest.raises(ConfigError, match="--list names them"):
        find_experiment("imagenet22k")
