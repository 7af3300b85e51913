"""FewShotRegressor: against the evaluation it must agree with, in the table's units, in scikit-learn's manners."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.functions import small_sine, write_folder
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.errors import ConfigError, DataError, NotFittedError
from torchreptile.data.functions.sine import sines
from torchreptile.data.samplers import SineSampler
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.inference.regressor import FewShotRegressor
from torchreptile.training.train import train
from torchreptile.training.weights import load_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on sine waves."""
    folder = tmp_path_factory.mktemp("runs") / "sine"
    train(small_sine(eval_batch=2), folder)
    return folder


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One on a table whose values are around 500."""
    folder = tmp_path_factory.mktemp("runs")
    table = write_folder(folder / "table")
    train(small_sine(table=str(table), queries=4, outer_steps=40, outer_step_size=0.5, eval_steps=40), folder / "run")
    return folder / "run"


def test_it_says_what_an_evaluation_says(run: Path) -> None:
    """The same mini-batches: the same values."""
    its, loaded = SineSampler(sines("sine"), 5, 7).sample(1, torch.Generator().manual_seed(0)), load_weights(run)
    algorithm = build_algorithm(loaded.config, (1,), torch.device("cpu"), targets=1)
    expected = algorithm.predict(loaded.state, its, torch.Generator().manual_seed(4)).inductive[0, :, 0]
    regressor = FewShotRegressor(run, seed=4).fit(its.support_x[0], its.support_y[0, :, 0])
    np.testing.assert_allclose(regressor.predict(its.query_x[0]), expected.numpy(), atol=1e-6)
    column = FewShotRegressor(run, seed=4).fit(its.support_x[0], its.support_y[0])
    assert column.predict(its.query_x[0]).shape == (7, 1)


def test_it_speaks_in_the_tables_units(plants: Path) -> None:
    """A plant of the same kind: values around 500, R squared of points never seen near 1."""
    dose = np.linspace(0, 20, 40)[:, None]
    value = 500 + 40 * 0.7 * (1 + dose[:, 0] / 10)
    regressor = FewShotRegressor(plants).fit(dose[::4], value[::4])
    assert regressor.score(dose, value) > 0.8
    assert abs(regressor.predict(dose).mean() - value.mean()) < 10
    truth, predicted = value[1::4], regressor.predict(dose[1::4])
    expected = 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert regressor.score(dose[1::4], truth) == pytest.approx(expected)


def test_a_module_of_ones_own_learns_from_its_own_weights_and_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    before = copy.deepcopy(module.state_dict())
    x = np.random.default_rng(0).normal(size=(30, 2))
    y = np.stack([x[:, 0], -x[:, 1]], axis=1)
    regressor = FewShotRegressor(module, steps=300).fit(x, y)
    assert regressor.score(x, y) > 0.9
    assert regressor.n_features_in_ == 2
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_scikit_learns_manners(run: Path) -> None:
    regressor = FewShotRegressor(run, steps=7)
    assert regressor.set_params(seed=2).get_params() == {
        "weights": run, "network": None, "steps": 7, "batch": None, "inner_lr": None, "seed": 2, "device": "cpu",
    }  # fmt: skip
    assert repr(regressor) == f"FewShotRegressor(weights={run!r}, steps=7, seed=2)"
    with pytest.raises(ConfigError, match="unknown setting stepz; the settings are weights, network"):
        regressor.set_params(stepz=1)
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    assert base.clone(regressor).get_params() == regressor.get_params()
    assert base.is_regressor(regressor)


def test_what_cannot_be_is_refused(run: Path) -> None:
    regressor = FewShotRegressor(run)
    with pytest.raises(NotFittedError, match="is not fitted; call fit"):
        regressor.predict([[1.0]])
    for x, y, predicted in (
        ([1.0, 2.0], [1.0, 2.0], r"X has the shape \(2,\); it must be \(N, inputs\), such as X.reshape"),
        ([[1.0], [2.0]], [1.0], "2 points and 1 values"),
        ([["a"]], [1.0], "X is not an array of numbers"),
        ([[np.nan]], [1.0], "X has values that are not finite"),
        (np.zeros((0, 1)), [], r"X has the shape \(0, 1\)"),
        ([[1.0, 2.0]], [1.0], "X has 2 columns and y 1; sine was trained with 1 and 1"),
    ):
        with pytest.raises(DataError, match=predicted):
            regressor.fit(x, y)
    regressor.fit([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(DataError, match="X has 2 columns; it was fitted with 1"):
        regressor.predict([[1.0, 2.0]])
    with pytest.raises(DataError, match="y is constant"):
        regressor.score([[1.0], [2.0]], [3.0, 3.0])
    with pytest.raises(ConfigError, match="omniglot-5way classifies images; use FewShotClassifier"):
        FewShotRegressor("omniglot-5way").fit([[1.0]], [1.0])
    with pytest.raises(ConfigError, match="sine fits functions; use FewShotRegressor"):
        FewShotClassifier(run).fit(np.zeros((2, 28, 28), dtype=np.uint8), ["a", "b"])


def test_a_fitted_regressor_can_be_pickled_and_copied(run: Path) -> None:
    points, values = [[-1.0], [0.5], [2.0]], [0.3, 1.9, 2.4]
    module = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    for regressor in (FewShotRegressor(run, steps=3, seed=1), FewShotRegressor(module, steps=3)):
        predicted = regressor.fit(points, values).predict([[0.0], [1.5]])
        for other in (pickle.loads(pickle.dumps(regressor)), copy.deepcopy(regressor)):
            assert np.array_equal(other.predict([[0.0], [1.5]]), predicted)
            assert other.n_features_in_ == 1
