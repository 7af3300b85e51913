"""A network adapted to one support set: the state of a fitted :class:`FewShotClassifier`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchreptile.algorithms.base import Adapted, Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.own_images.decode import Scaling
from torchreptile.inference.class_balance import draw_for
from torchreptile.inference.classifier_file import SavedClassifier
from torchreptile.inference.estimator import CopyOf
from torchreptile.inference.finite import require_finite_predictions, require_finite_weights
from torchreptile.inference.image_input import as_floats, as_images
from torchreptile.inference.rejection import Rejection, none_label, rejection_of, with_none_label
from torchreptile.models.blueprint import Network, build_network
from torchreptile.models.built_in import Params
from torchreptile.models.losses import answerable
from torchreptile.models.module_call import params_of
from torchreptile.training.resize_head import for_classes, with_outputs
from torchreptile.training.weights import MetaWeights

QUERIES_AT_A_TIME = 64  # bounds memory


@dataclass(frozen=True, eq=False)
class StartingPoint:
    """The weights that adaptation starts from: meta-learned, or those of a custom module.

    Attributes:
        weights: meta-learned weights, or a custom module, which is never changed.
        network: makes the network; None for the one published with the algorithm.
        image_shape: (C, H, W) of the network's images, or (C, L) of its series.
    """

    weights: MetaWeights | nn.Module
    network: Network | None
    image_shape: tuple[int, ...]

    @classmethod
    def of_module(cls, module: nn.Module, image_shape: tuple[int, ...]) -> StartingPoint:
        """Return the starting point at the current weights of a module."""
        return cls(module, CopyOf(module), image_shape)

    @property
    def scaling(self) -> Scaling:
        """The filter that resizes images as those of the training were."""
        drawn = isinstance(self.weights, MetaWeights) and self.weights.config.task.drawn_by_hand
        return "lines" if drawn else "lanczos"

    def config(self, way: int, steps: int | None, batch: int | None, inner_lr: float | None) -> Config:
        """Return the settings to adapt to ``way`` classes; the others are None for their defaults."""
        trained = self.weights.config if isinstance(self.weights, MetaWeights) else Config()
        return for_classes(trained, way, steps, batch, inner_lr)

    def state(self, algorithm: Algorithm) -> MetaState:
        """Return the state that adaptation starts from.

        Raises:
            ConfigError, RunError: the weights do not fit the network of ``algorithm``.
        """
        if isinstance(self.weights, nn.Module):
            return algorithm.initial_state(params_of(algorithm.blueprint.module))
        weights = with_outputs(self.weights, algorithm)
        weights.require_fit(algorithm)
        return weights.state

    def as_weights(self, config: Config, state: MetaState) -> MetaWeights:
        """Return the weights in the form that files hold.

        Args:
            config: settings of the adaptation, which a custom module gets as its own.
            state: state of a custom module.

        Raises:
            ConfigError: the module has buffers, which a weights file does not hold.
        """
        if isinstance(self.weights, MetaWeights):
            return self.weights
        name = type(self.weights).__name__
        assert self.network is not None
        # Without running averages of BatchNorm and InstanceNorm, which are not used.
        built = build_network(self.network, self.image_shape, config.task.way)
        if buffers := [buffer for buffer, _ in built.named_buffers()]:
            raise ConfigError(
                f"{name} has the buffers {', '.join(buffers)}, which a weights file does not hold; make them constants "
                "of its code, or parameters"
            )
        shape = "x".join(map(str, self.image_shape))
        config = config.replace(dataset="folder", data="own", shape=shape, image_size=0, grey=False)
        return MetaWeights(name, config, state, 0, None)


@dataclass(frozen=True, eq=False)
class SupportSet:
    """Labelled images to adapt to.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64 indices into ``classes``.
        classes: (K,) sorted labels of the user.
    """

    images: Tensor
    labels: Tensor
    classes: NDArray[Any]


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A network adapted to one support set.

    Attributes:
        start: the weights before adaptation.
        algorithm: adapts and predicts.
        state: the state before adaptation, on ``device``.
        adapted: the adapted network.
        support: the support set; in predictions its images share a batch with the queries.
        settings: steps, batch, inner_lr, balanced, transductive and seed of the classifier when it was fitted.
        device: device of the network.
        rejection: recognises images of none of the classes; None if every image gets one of them.
    """

    start: StartingPoint
    algorithm: Algorithm
    state: MetaState
    adapted: Adapted
    support: SupportSet
    settings: dict[str, Any]
    device: torch.device
    rejection: Rejection | None = None

    @classmethod
    def adapt(
        cls,
        start: StartingPoint,
        algorithm: Algorithm,
        state: MetaState,
        support: SupportSet,
        settings: dict[str, Any],
        device: torch.device,
    ) -> FittedClassifier:
        """Adapt to a support set; the arguments are the attributes of the class.

        Raises:
            DivergedError: the adapted weights are not finite numbers.
        """
        state = state.mapped(lambda tensor: tensor.to(device))
        generator = torch.Generator(device).manual_seed(settings["seed"])
        drawn = draw_for(algorithm, support.labels, settings["balanced"], generator)
        with torch.no_grad(), algorithm.context.network_draws(generator):
            images = as_floats(support.images, algorithm.config, device)
            adapted = algorithm.adapt(state, images, support.labels.to(device)[None], drawn)
        require_finite_weights(algorithm, state, adapted)
        return cls(start, algorithm, state, adapted, support, settings, device)

    @property
    def classes(self) -> NDArray[Any]:
        """The labels in the order of the probabilities: those of the support set, then that of rejected images."""
        return self.support.classes if self.rejection is None else with_none_label(self.support.classes)

    def rejecting(self, rate: float) -> FittedClassifier:
        """Return the classifier with a rejection that is calibrated on its support set.

        Args:
            rate: share of known images to reject, above 0 and below 1.

        Raises:
            ConfigError: the labels leave no room for one of rejected images, or queries are labelled in one batch.
            DivergedError: the network's outputs for an image are not finite numbers.
        """
        none_label(self.support.classes)
        if self.settings["transductive"]:
            raise ConfigError("reject needs every image to be labelled alone; fit with transductive=False")
        generator = torch.Generator(self.device).manual_seed(self.settings["seed"])

        def adapt(images: Tensor, labels: Tensor) -> Adapted:
            drawn = draw_for(self.algorithm, labels.cpu(), self.settings["balanced"], generator)
            return self.algorithm.adapt(self.state, images[None], labels[None], drawn)

        images = as_floats(self.support.images, self.algorithm.config, self.device)[0]
        labels = self.support.labels.to(self.device)
        with torch.no_grad(), self.algorithm.context.network_draws(generator):
            rejection = rejection_of(self.algorithm, adapt, self.adapted, images, labels, rate, generator)
        return replace(self, rejection=rejection)

    @classmethod
    def restored(
        cls,
        start: StartingPoint,
        moved: Params,
        evaluation: dict[str, int],
        support: SupportSet,
        settings: dict[str, Any],
        device: torch.device,
        rejection: Rejection | None = None,
    ) -> FittedClassifier:
        """Return a fitted classifier as it was, from what is stored of it.

        Args:
            start: the weights before adaptation.
            moved: the parameters that adaptation changed, by name.
            evaluation: settings under which adapting once more changes nothing.
            support: the support set.
            settings: those of the classifier when it was fitted.
            device: of the network.
            rejection: as it was calibrated.

        Raises:
            ConfigError, RunError: the weights do not fit the network.
        """
        way = len(support.classes)
        config = start.config(way, settings["steps"], settings["batch"], settings["inner_lr"]).replace(**evaluation)
        algorithm = build_algorithm(config, start.image_shape, device, network=start.network)
        state = start.state(algorithm)
        state = replace(state, params=state.params | moved)
        if not algorithm.fits(state.params):
            raise RunError("damaged: its adapted weights do not fit its network")
        return replace(cls.adapt(start, algorithm, state, support, settings, device), rejection=rejection)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what :meth:`restored` needs: the weights, not the algorithm, which may hold compiled code."""
        moved, evaluation = self._settled()
        moved = {name: p.cpu() for name, p in moved.items()}
        stored = (self.start, moved, evaluation, self.support, self.settings, str(self.device), self.rejection)
        return _unpickled, stored

    def _settled(self) -> tuple[Params, dict[str, int]]:
        """Return the parameters that adaptation changed, and settings under which adapting again changes nothing."""
        state, config = self.algorithm.settled(self.state, self.adapted)
        before, evaluation = self.state.params, config.evaluation
        moved = {name: p for name, p in state.params.items() if p is not before[name]}
        return moved, {"eval_steps": evaluation.eval_steps, "finetune_steps": evaluation.finetune_steps}

    def prepare(self, images: Any) -> Tensor:
        """Return images in any form that ``fit`` takes as (N, C, H, W) uint8 of the network's size."""
        return as_images(images, self.start.image_shape, self.start.scaling)

    def probabilities(self, images: Tensor) -> NDArray[np.float32]:
        """Return the probabilities of ``classes`` of (N, C, H, W) uint8 images of the network's size.

        Raises:
            DivergedError: they are not finite numbers.
        """
        queries = as_floats(images, self.algorithm.config, self.device)
        with torch.no_grad():
            if self.settings["transductive"]:
                logits = self.adapted.transductive(queries)
            else:
                parts = torch.split(queries, QUERIES_AT_A_TIME, dim=1)
                logits = torch.cat([self.adapted.inductive(part) for part in parts], dim=1)
        require_finite_predictions(self.algorithm, answerable(logits[0]), "images")
        return self.shares(logits[0]).float().cpu().numpy()

    def shares(self, logits: Tensor) -> Tensor:
        """Return the probabilities of ``classes`` for logits (N, K)."""
        return logits.float().softmax(1) if self.rejection is None else self.rejection.with_none(logits)

    def saved(self) -> SavedClassifier:
        """Return the content of a classifier file.

        Raises:
            ConfigError: the starting point is a module with buffers.
        """
        moved, evaluation = self._settled()
        return SavedClassifier(
            self.start.as_weights(self.algorithm.config, self.state),
            adapted=moved,
            evaluation=evaluation,
            support=self.support.images,
            labels=self.support.labels,
            classes=self.support.classes,
            settings=self.settings,
            rejection=self.rejection,
        )

    def in_plain_torch(self) -> Adapted:
        """Return the adapted network on the CPU in plain torch operations, which can be exported."""
        state, config = self.algorithm.settled(self.state, self.adapted)
        cpu = torch.device("cpu")
        plain = build_algorithm(
            config.replace(execution="loop"), self.start.image_shape, cpu, network=self.start.network
        )
        state = state.mapped(lambda tensor: tensor.to(cpu))
        generator = torch.Generator().manual_seed(self.settings["seed"])
        drawn = draw_for(plain, self.support.labels, self.settings["balanced"], generator)
        if plain.execution.draws_predicting:
            name = type(plain.blueprint.module).__name__
            raise ConfigError(f"{name} draws random numbers in predictions, so no program gives the same ones")
        with torch.no_grad():
            images = as_floats(self.support.images, config, cpu)
            return plain.adapt(state, images, self.support.labels[None], drawn)


def _unpickled(
    start: StartingPoint,
    moved: Params,
    evaluation: dict[str, int],
    support: SupportSet,
    settings: dict[str, Any],
    device: str,
    rejection: Rejection | None,
) -> FittedClassifier:
    """Return the fitted classifier that was pickled; see :meth:`FittedClassifier.restored`."""
    place = choose_device(device)
    return FittedClassifier.restored(
        start, {name: p.to(place) for name, p in moved.items()}, evaluation, support, settings, place, rejection
    )
