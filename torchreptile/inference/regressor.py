"""FewShotRegressor: a handful of points of a function in, the function out, in scikit-learn's manners."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchreptile.algorithms import build_algorithm
from torchreptile.algorithms.base import Adapted
from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError, DataError, NotFittedError
from torchreptile.data.functions.tables import Scale
from torchreptile.inference.estimator import Estimator
from torchreptile.models.blueprint import Network
from torchreptile.training.weights import MetaWeights, load_weights

AT_A_TIME = 4096  # points, which bounds memory


@final
class FewShotRegressor(Estimator):
    """Learns a function that meta-training never saw from a few of its points.

    Example:
        >>> regressor = FewShotRegressor("runs/sine").fit([[-1.0], [0.5], [2.0]], [0.3, 1.9, 2.4])
        >>> regressor.predict([[1.0]])  # array([2.2])

    Points and values are in the units of the table that was trained on.

    Attributes:
        n_features_in_: numbers in a point.
    """

    def __init__(
        self,
        weights: str | Path | MetaWeights | nn.Module,
        *,
        network: Network | None = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Keeps the settings; nothing is read before :meth:`fit`.

        Args:
            weights: a run folder or weights file of functions, what ``load_weights`` gave, or a module of your own,
                from whose weights the steps of the preset ``sine`` then start (a copy; yours is left as it is).
            network: what the weights belong to, if not the network published with their algorithm.
            steps: inner steps on the known points; by default as many as in the weights' own evaluation.
            batch: points in an inner mini-batch, 0 for all; by default likewise. Steps of adam grow with it.
            seed: of the mini-batches.
            device: cpu, cuda, cuda:N or auto.
        """
        self.weights, self.network = weights, network
        self.steps, self.batch, self.seed, self.device = steps, batch, seed, device

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 (scikit-learn's name)
        """Adapt to known points.

        Args:
            X: (N, inputs) points.
            y: (N,) values, or (N, targets).

        Raises:
            DataError: points or values cannot be used.
            ConfigError, RunError: the weights or settings cannot.
        """
        points, values = _numbers(X, "X"), _numbers(y, "y")
        if len(points) != len(values):
            raise DataError(f"there are {len(points)} points and {len(values)} values")
        self._flat = values.ndim == 1
        values = values.reshape(len(values), -1)
        learned, network = self._source()
        inputs, targets, scale = points.shape[1], values.shape[1], None if learned is None else learned.scale
        wanted = (1, 1) if scale is None else (len(scale.inputs), len(scale.targets))
        if learned is not None and (inputs, targets) != wanted:
            raise DataError(
                f"X has {inputs} columns and y {targets}; {learned.name} was trained with {wanted[0]} and {wanted[1]}"
            )
        device = choose_device(self.device)
        algorithm = build_algorithm(
            self._settings(learned), (inputs,), device, network=network, targets=targets
        )  # fmt: skip
        if learned is None:
            assert isinstance(self.weights, nn.Module)
            state = algorithm.initial_state({name: p.detach() for name, p in self.weights.named_parameters()})
        else:
            learned.require_fit(algorithm)
            state = learned.state
        x, known = torch.from_numpy(points), torch.from_numpy(values)
        if scale is not None:
            x, known = scale.standard_x(x), scale.standard_y(known)
        generator = torch.Generator(device).manual_seed(self.seed)
        drawn = algorithm.draw(1, len(x), generator)
        with torch.no_grad(), algorithm.own_draws(generator):
            self._adapted: Adapted = algorithm.adapt(
                state.mapped(lambda tensor: tensor.to(device)), _task(x, device), _task(known, device), drawn
            )
        self._device, self._scale = device, scale
        self.n_features_in_ = inputs
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """The values at these points, shaped as those that :meth:`fit` was given: (N,) or (N, targets).

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the points cannot be used.
        """
        if "_adapted" not in self.__dict__:
            raise NotFittedError(f"{self!r} has seen no points yet; call fit(X, y) first")
        points = _numbers(X, "X")
        if points.shape[1] != self.n_features_in_:
            raise DataError(f"X has {points.shape[1]} columns; it was fitted with {self.n_features_in_}")
        scale: Scale | None = self._scale
        x = torch.from_numpy(points)
        x = x if scale is None else scale.standard_x(x)
        with torch.no_grad():
            parts = [self._adapted.inductive(_task(part, self._device))[0] for part in torch.split(x, AT_A_TIME)]
        said = torch.cat(parts).double().cpu()
        said = said if scale is None else scale.own_y(said)
        values: NDArray[np.float64] = said.numpy()
        return values[:, 0] if self._flat else values

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """R squared: 1 is perfect, 0 as good as always saying the mean of ``y``; the mean over targets.

        Raises:
            DataError: there are not as many values as points, or they are all the same.
        """
        truth = _numbers(y, "y")
        said = self.predict(X)
        if said.shape != truth.shape:
            raise DataError(f"y has the shape {truth.shape}, and what is predicted {said.shape}")
        around = ((truth - truth.mean(0)) ** 2).sum(0)
        if not np.all(around > 0):
            raise DataError("y never changes, so R squared says nothing")
        return float(np.mean(1 - ((truth - said) ** 2).sum(0) / around))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, where it is installed, must know to take it for a regressor."""
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags(estimator_type="regressor", target_tags=TargetTags(required=True), regressor_tags=RegressorTags())

    def _source(self) -> tuple[MetaWeights | None, Network | None]:
        """The weights (none for a module of one's own), and their network."""
        if isinstance(self.weights, nn.Module):
            module = self.weights
            return None, lambda shape, outputs: copy.deepcopy(module)
        learned = self.weights if isinstance(self.weights, MetaWeights) else load_weights(self.weights)
        if not learned.config.task.regression:
            raise ConfigError(f"{learned.name} labels images; FewShotClassifier is the one for it")
        return learned, self.network

    def _settings(self, learned: MetaWeights | None) -> Config:
        own = learned.config if learned is not None else preset("sine")
        return own.replace(
            eval_steps=own.evaluation.eval_steps if self.steps is None else self.steps,
            eval_batch=own.adapting_batch if self.batch is None else self.batch,
            execution="auto",
            precision="fp32",
            task_chunk=0,
        )


def _task(values: Tensor, device: torch.device) -> Tensor:
    """(N, ...) float64 -> (1, N, ...) float32, as episodes have them."""
    return values.to(device=device, dtype=torch.float32)[None]


def _numbers(given: Any, name: str) -> NDArray[np.float64]:
    """(N, columns) for X, (N,) or (N, columns) for y; finite.

    Raises:
        DataError: it is something else.
    """
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} is no array of numbers ({error})") from error
    form = "(N, inputs), such as X.reshape(-1, 1)" if name == "X" else "(N,) or (N, targets)"
    if array.ndim not in ((2,) if name == "X" else (1, 2)) or not array.size:
        raise DataError(f"{name} has the shape {array.shape}; it must be {form}")
    if not np.isfinite(array).all():
        raise DataError(f"{name} has values that are not finite")
    return np.ascontiguousarray(array)
