"""Adapt to the examples of the demo and classify its new drawing before, during and after the inner steps."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.algorithms.base import Adapted
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.reptile_base import ReptileBase
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError
from torchreptile.inference.image_input import as_floats
from torchreptile.inference.rejection import Rejection, rejection_of
from torchreptile.models.built_in import image_sizes
from torchreptile.training.resize_head import for_classes, with_outputs
from torchreptile.training.weights import MetaWeights

Pixels = NDArray[np.uint8]

STAGES = 11  # largest number of stages with probabilities
PART = 5  # inner steps between two yields
REJECT = 0.02  # share of known drawings that may be taken for none of the classes
SUPPORT_SETS = 16  # whose rejection is kept


@dataclass(frozen=True)
class Stage:
    """The prediction after some inner steps.

    Attributes:
        steps: inner steps done.
        probabilities: probability of each class for the query; None without a query.
    """

    steps: int
    probabilities: list[float] | None


@dataclass(frozen=True)
class Answer:
    """The result of adapting to one support set.

    Attributes:
        losses: cross-entropy of every inner step on its inner batch, before the step.
        stages: predictions before the first step, after some of them, and after the last.
        none: probability that the query shows none of the classes, by :mod:`torchreptile.inference.rejection`; None
            without a query.
        rejected: whether that is more probable than every class.
        milliseconds: wall time.
    """

    losses: list[float]
    stages: list[Stage]
    none: float | None
    rejected: bool
    milliseconds: float


class Adapter:
    """Adapts meta-learned weights to support sets, each time from the start."""

    def __init__(self, weights: MetaWeights, device: str = "auto") -> None:
        """Move the weights to the device and build the algorithm.

        Raises:
            ConfigError: the device does not exist, or the weights are not of an algorithm whose steps can be shown.
        """
        if weights.config.task.regression:
            raise ConfigError(f"{weights.name} fits functions; the demo is for images")
        self.device = choose_device(device)
        self.weights = weights.to(self.device)
        self.shape = image_sizes(weights.config.task.image_shape, "the demo", square=True)
        self.steps = weights.config.evaluation.eval_steps
        self._for_classes = lru_cache(maxsize=32)(self._build)
        self._rejections: OrderedDict[bytes, Rejection] = OrderedDict()
        self._for_classes(
            weights.config.task.way, self.steps
        )  # refuses unsuitable weights now, not at the first request

    def answer(self, classes: list[list[Pixels]], query: Pixels | None, steps: int) -> Answer:
        """Adapt to the classes and classify the query.

        The query is classified alone, in one batch with the support set, as in inductive evaluation.

        Args:
            classes: for each of at least two classes its images, (C, H, W) uint8, at least one.
            query: (C, H, W) uint8 image to classify; None for none yet.
            steps: inner steps.
        """
        work = self.answer_in_parts(classes, query, steps)
        while True:
            try:
                next(work)
            except StopIteration as end:
                answer: Answer = end.value
                return answer

    def answer_in_parts(
        self, classes: list[list[Pixels]], query: Pixels | None, steps: int
    ) -> Generator[None, None, Answer]:
        """Return what :meth:`answer` does, with a ``yield`` after every few inner steps.

        Args:
            classes: for each of at least two classes its images, (C, H, W) uint8, at least one.
            query: (C, H, W) uint8 image to classify; None for none yet.
            steps: inner steps.
        """
        start = perf_counter()
        algorithm, state = self._for_classes(len(classes), steps)
        support_x = self._floats([image for images in classes for image in images])
        labels = [label for label, images in enumerate(classes) for _ in images]
        support_y = torch.tensor([labels], device=self.device)
        drawn = algorithm.draw(1, len(labels), torch.Generator(self.device).manual_seed(0))
        losses: list[float] = []
        stages: list[Stage] = []
        with_none: list[float] = []
        shown = stops(steps)
        adapting = algorithm.stages(state, support_x, support_y, drawn, sorted({*shown, *range(0, steps, PART)}))
        while True:
            with torch.no_grad():  # never across a yield: the thread's other work would run in it
                stage = next(adapting, None)
                if stage is None:
                    break
                losses += stage.losses[:, 0].tolist()
                if stage.steps in shown:
                    logits = None if query is None else stage.learner.inductive(self._floats([query]))[0]
                    stages.append(Stage(stage.steps, None if logits is None else logits[0].float().softmax(0).tolist()))
                if stage.steps == steps and logits is not None:
                    rejection = self._rejection(algorithm, state, stage.learner, support_x[0], support_y[0], steps)
                    with_none = rejection.with_none(logits)[0].tolist()
            yield
        none = with_none[-1] if with_none else None
        rejected = none is not None and none == max(with_none)
        return Answer(losses, stages, none, rejected, 1000 * (perf_counter() - start))

    def _rejection(
        self, algorithm: ReptileBase, state: MetaState, learner: Adapted, images: Tensor, labels: Tensor, steps: int
    ) -> Rejection:
        """The rejection calibrated on this support set, which is kept for the next query.

        Args:
            algorithm: for so many classes and steps.
            state: before adaptation.
            learner: adapted to the entire support set.
            images: (S, C, H, W).
            labels: (S,).
            steps: inner steps.
        """
        key = hashlib.sha256(images.cpu().numpy().tobytes() + str((labels.tolist(), steps)).encode()).digest()
        if key not in self._rejections:
            generator = torch.Generator(self.device).manual_seed(0)

            def adapt(support: Tensor, its: Tensor) -> Adapted:
                return algorithm.adapt(state, support[None], its[None], algorithm.draw(1, len(its), generator))

            self._rejections[key] = rejection_of(algorithm, adapt, learner, images, labels, REJECT, generator)
            if len(self._rejections) > SUPPORT_SETS:
                self._rejections.popitem(last=False)
        return self._rejections[key]

    def _build(self, way: int, steps: int) -> tuple[ReptileBase, MetaState]:
        """The algorithm for ``way`` classes, and the weights with a head for them."""
        trained = self.weights.config
        config = for_classes(trained, way, steps)
        algorithm = build_algorithm(config, self.shape, self.device)
        if not isinstance(algorithm, ReptileBase):
            raise ConfigError(
                f"{self.weights.name} was trained with {trained.method.algorithm}; the demo shows weights of reptile "
                "and foml"
            )
        if self.weights.state.params.keys() != algorithm.shapes.keys():
            raise ConfigError(f"{self.weights.name} has a custom network; the demo shows the built-in ones")
        weights = with_outputs(self.weights, algorithm)
        weights.require_fit(algorithm)
        return algorithm, weights.state.mapped(lambda tensor: tensor.to(self.device))

    def _floats(self, images: list[Pixels]) -> Tensor:
        """(1, N, C, H, W) floats from 0 to 1 of N uint8 images."""
        return as_floats(torch.from_numpy(np.stack(images)), self.weights.config, self.device)


def stops(steps: int) -> list[int]:
    """Return the numbers of inner steps after which to predict: 0, ``steps`` and some between, denser at the start.

    Example:
        >>> stops(50)
        [0, 1, 2, 4, 6, 9, 14, 21, 32, 50]
    """
    return sorted({0, *np.geomspace(1, steps, STAGES - 1).round().astype(int).tolist()})
