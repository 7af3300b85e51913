"""FewShotRegressor: a function from a few of its points, with the interface of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchreptile.algorithms.base import Adapted, Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError, DataError, NotFittedError
from torchreptile.data.functions.tables import Scale
from torchreptile.inference.estimator import CopyOf, Estimator
from torchreptile.inference.finite import require_finite_predictions, require_finite_weights
from torchreptile.models.blueprint import Network
from torchreptile.models.built_in import Shape
from torchreptile.models.module_call import params_of
from torchreptile.training.weights import MetaWeights, load_weights

POINTS_AT_A_TIME = 4096  # bounds memory


@dataclass(frozen=True, eq=False)
class FittedRegressor:
    """A network adapted to the points of one function.

    Attributes:
        algorithm: adapted the network.
        state: the state before adaptation, on ``device``.
        known: points (N, inputs) and values (N, targets) that it was adapted to, float64, standardised by ``scale``.
        adapted: the adapted network.
        device: device of the network.
        scale: standardisation of points and values; None if the network uses them as they are.
        flat: whether the values were (N,) rather than (N, targets).
        seed: seed of the inner batches.
    """

    algorithm: Algorithm
    state: MetaState
    known: tuple[Tensor, Tensor]
    adapted: Adapted
    device: torch.device
    scale: Scale | None
    flat: bool
    seed: int

    @classmethod
    def adapt(
        cls,
        algorithm: Algorithm,
        state: MetaState,
        known: tuple[Tensor, Tensor],
        device: torch.device,
        scale: Scale | None,
        flat: bool,
        seed: int,
    ) -> FittedRegressor:
        """Adapt to known points; the arguments are the attributes of the class.

        Raises:
            DivergedError: the adapted weights are not finite numbers.
        """
        x, y = known
        state = state.mapped(lambda tensor: tensor.to(device))
        generator = torch.Generator(device).manual_seed(seed)
        drawn = algorithm.draw(1, len(x), generator)
        with torch.no_grad(), algorithm.context.network_draws(generator):
            adapted = algorithm.adapt(state, _task(x, device), _task(y, device), drawn)
        remedy = ", or bring X and y to a size of about 1" if scale is None else ""
        require_finite_weights(algorithm, state, adapted, remedy)
        return cls(algorithm, state, known, adapted, device, scale, flat, seed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the adapted weights and the known points, not the algorithm, which may hold compiled code."""
        state, config = self.algorithm.settled(self.state, self.adapted)
        state, blueprint = state.mapped(lambda tensor: tensor.cpu()), self.algorithm.blueprint
        network = blueprint.network, blueprint.image_shape, blueprint.outputs
        return _unpickled, (config, network, state, self.known, str(self.device), self.scale, self.flat, self.seed)

    @property
    def inputs(self) -> int:
        """Numbers per point."""
        return self.known[0].shape[1]

    def values(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the predicted values of (N, inputs) points, (N,) or (N, targets).

        Raises:
            DivergedError: they are not finite numbers.
        """
        x = torch.from_numpy(points)
        x = x if self.scale is None else self.scale.standard_x(x)
        with torch.no_grad():
            parts = [self.adapted.inductive(_task(part, self.device))[0] for part in torch.split(x, POINTS_AT_A_TIME)]
        predicted = torch.cat(parts).double().cpu()
        predicted = predicted if self.scale is None else self.scale.own_y(predicted)
        require_finite_predictions(self.algorithm, predicted.isfinite().all(1), "points")
        values: NDArray[np.float64] = predicted.numpy()
        return values[:, 0] if self.flat else values


@final
class FewShotRegressor(Estimator):
    """A regressor that adapts meta-learned weights to a new function, from a few of its points.

    Points and values are in the units of the table that the weights were trained on.

    Attributes:
        n_features_in_: numbers per point.
        fitted_: the adapted network with everything that predictions depend on.

    Example:
        >>> from tempfile import mkdtemp
        >>> import torchreptile as tr
        >>> run = tr.train(tr.preset("sine").replace(outer_steps=20, monitor_episodes=2), out=mkdtemp() + "/sine")
        >>> regressor = FewShotRegressor(run.folder).fit([[-1.0], [0.5], [2.0]], [0.3, 1.9, 2.4])
        >>> regressor.predict([[1.0], [1.5]]).shape
        (2,)
    """

    def __init__(
        self,
        weights: str | Path | MetaWeights | nn.Module,
        *,
        network: Network | None = None,
        steps: int | None = None,
        batch: int | None = None,
        inner_lr: float | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Store the settings; nothing is loaded before :meth:`fit`.

        Args:
            weights: run folder or weights file trained on functions, return value of ``load_weights``, or a custom
                module, whose weights are the starting point (a copy is adapted, with the settings of the preset
                ``sine``).
            network: the network of the weights, if it is not the one published with the algorithm.
            steps: inner steps on the known points; by default those of the weights' evaluation.
            batch: points in an inner batch, 0 for all; by default that of the weights' evaluation. The steps of Adam
                become larger with it.
            inner_lr: learning rate of the inner steps; by default that of the weights' training.
            seed: seed of the inner batches.
            device: cpu, cuda, cuda:N or auto.
        """
        self.weights, self.network = weights, network
        self.steps, self.batch, self.inner_lr, self.seed, self.device = steps, batch, inner_lr, seed, device
        self._fitted: FittedRegressor | None = None

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 (scikit-learn's name)
        """Adapt to known points.

        Args:
            X: (N, inputs) points.
            y: (N,) or (N, targets) values.

        Raises:
            DataError: points or values cannot be used.
            ConfigError: the settings do not fit the weights.
            RunError: the weights cannot be loaded.
            DivergedError: the adapted weights are not finite numbers.
        """
        points, values = _numbers(X, "X"), _numbers(y, "y")
        if len(points) != len(values):
            raise DataError(f"there are {len(points)} points and {len(values)} values")
        flat = values.ndim == 1
        values = values.reshape(len(values), -1)
        weights, network = self._source()
        inputs, targets, scale = points.shape[1], values.shape[1], None if weights is None else weights.scale
        wanted = (1, 1) if scale is None else (len(scale.inputs), len(scale.targets))
        if weights is not None and (inputs, targets) != wanted:
            raise DataError(
                f"X has {inputs} columns and y {targets}; {weights.name} was trained with {wanted[0]} and {wanted[1]}"
            )
        device = choose_device(self.device)
        algorithm = build_algorithm(self._settings(weights), (inputs,), device, network=network, targets=targets)
        x, known = torch.from_numpy(points), torch.from_numpy(values)
        if scale is not None:
            x, known = scale.standard_x(x), scale.standard_y(known)
        state = self._state(weights, algorithm)
        self._fitted = FittedRegressor.adapt(algorithm, state, (x, known), device, scale, flat, self.seed)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return the values at these points, of the shape that :meth:`fit` was given: (N,) or (N, targets).

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the points cannot be used.
            DivergedError: the values are not finite numbers.
        """
        fitted = self.fitted_
        points = _numbers(X, "X")
        if points.shape[1] != fitted.inputs:
            raise DataError(f"X has {points.shape[1]} columns; it was fitted with {fitted.inputs}")
        return fitted.values(points)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return R squared, the mean over targets: 1 is perfect, 0 as good as predicting the mean of ``y``.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: ``y`` has another shape than the predictions, or is constant.
        """
        truth = _numbers(y, "y")
        predicted = self.predict(X)
        if predicted.shape != truth.shape:
            raise DataError(f"y has the shape {truth.shape}, and the predictions {predicted.shape}")
        variation = ((truth - truth.mean(0)) ** 2).sum(0)
        if not np.all(variation > 0):
            raise DataError("y is constant, so R squared is undefined")
        return float(np.mean(1 - ((truth - predicted) ** 2).sum(0) / variation))

    @property
    def fitted_(self) -> FittedRegressor:
        """The adapted network with everything that predictions depend on."""
        if self._fitted is None:
            raise NotFittedError(f"{self!r} is not fitted; call fit(X, y) first")
        return self._fitted

    @property
    def n_features_in_(self) -> int:
        """Numbers per point."""
        return self.fitted_.inputs

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether :meth:`fit` was called, for scikit-learn's ``check_is_fitted``."""
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:
        """Return the tags by which scikit-learn recognises a regressor."""
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags(estimator_type="regressor", target_tags=TargetTags(required=True), regressor_tags=RegressorTags())

    def _source(self) -> tuple[MetaWeights | None, Network | None]:
        """The weights, None for a custom module, and what makes their network."""
        if isinstance(self.weights, nn.Module):
            return None, CopyOf(self.weights)
        weights = self.weights if isinstance(self.weights, MetaWeights) else load_weights(self.weights)
        if not weights.config.task.regression:
            raise ConfigError(f"{weights.name} classifies images; use FewShotClassifier")
        return weights, self.network

    def _state(self, weights: MetaWeights | None, algorithm: Algorithm) -> MetaState:
        """The state that adaptation starts from."""
        if weights is not None:
            weights.require_fit(algorithm)
            return weights.state
        assert isinstance(self.weights, nn.Module)
        return algorithm.initial_state(params_of(algorithm.blueprint.module))

    def _settings(self, weights: MetaWeights | None) -> Config:
        """The settings of the adaptation."""
        trained = weights.config if weights is not None else preset("sine")
        return trained.replace(
            eval_steps=trained.evaluation.eval_steps if self.steps is None else self.steps,
            eval_batch=trained.adapting_batch if self.batch is None else self.batch,
            execution="auto",
            precision="fp32",
            task_chunk=0,
        ).with_inner_lr(self.inner_lr)


def _unpickled(
    config: Config,
    network: tuple[Network, Shape, int],
    state: MetaState,
    known: tuple[Tensor, Tensor],
    device: str,
    scale: Scale | None,
    flat: bool,
    seed: int,
) -> FittedRegressor:
    """Return the fitted regressor that was pickled, by settings under which adapting again changes no weights."""
    made_by, shape, outputs = network
    place = choose_device(device)
    algorithm = build_algorithm(config, shape, place, network=made_by, targets=outputs)
    return FittedRegressor.adapt(algorithm, state, known, place, scale, flat, seed)


def _task(values: Tensor, device: torch.device) -> Tensor:
    """(N, ...) float64 as one task of (1, N, ...) float32."""
    return values.to(device=device, dtype=torch.float32)[None]


def _numbers(given: Any, name: str) -> NDArray[np.float64]:
    """Return finite numbers: (N, columns) for X, (N,) or (N, columns) for y.

    Raises:
        DataError: the array has another shape, is empty, or holds anything but finite numbers.
    """
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} is not an array of numbers ({error})") from error
    form = "(N, inputs), such as X.reshape(-1, 1)" if name == "X" else "(N,) or (N, targets)"
    if array.ndim not in ((2,) if name == "X" else (1, 2)) or not array.size:
        raise DataError(f"{name} has the shape {array.shape}; it must be {form}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} has values that are not finite")
    return np.ascontiguousarray(array)
