"""From a few images of each class, and one more, to what the network says of it: before, while and after it adapts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.algorithms import build_algorithm
from torchreptile.algorithms.base import MetaState
from torchreptile.algorithms.reptile_base import ReptileBase
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError
from torchreptile.inference.image_input import as_shown
from torchreptile.inference.resize_head import for_classes, with_outputs
from torchreptile.training.weights import MetaWeights

Pixels = NDArray[np.uint8]

STAGES = 11  # at most, of which probabilities are known


@dataclass(frozen=True)
class Seen:
    """What the network said at a place on the way.

    Attributes:
        steps: inner steps done.
        probabilities: of each class, for the query; None where there is no query.
    """

    steps: int
    probabilities: list[float] | None


@dataclass(frozen=True)
class Answer:
    """What became of one support set.

    Attributes:
        losses: the cross-entropy of every inner step, on its mini-batch and before it.
        stages: before the first step, on the way, and after the last.
        milliseconds: that it took.
    """

    losses: list[float]
    stages: list[Seen]
    milliseconds: float


class Teacher:
    """Adapts one set of meta-learned weights to whatever it is given, from scratch every time."""

    def __init__(self, learned: MetaWeights, device: str = "auto") -> None:
        """Keep the weights on the device, and compile code for them where that pays.

        Raises:
            ConfigError: there is no such device, or these weights do not adapt by inner steps that can be followed.
        """
        if learned.config.task.regression:
            raise ConfigError(f"{learned.name} fits functions; the demo is for images")
        self.device = choose_device(device)
        self.learned = learned.to(self.device)
        self.shape = learned.config.task.image_shape
        self.steps = learned.config.evaluation.eval_steps
        self._for_classes = lru_cache(maxsize=32)(self._build)
        self._for_classes(learned.config.task.way, self.steps)  # refuses now what would be refused later

    def answer(self, classes: list[list[Pixels]], query: Pixels | None, steps: int) -> Answer:
        """Adapt, and say what the query is.

        The query is labelled alone, in one batch with the support set, as in the inductive measurements.

        Args:
            classes: the images of each, (C, H, W) uint8; two classes or more, an image or more in each.
            query: the image asked about.
            steps: inner steps.
        """
        begun = perf_counter()
        algorithm, state = self._for_classes(len(classes), steps)
        support_x = self._floats([image for images in classes for image in images])
        labels = [label for label, images in enumerate(classes) for _ in images]
        support_y = torch.tensor([labels], device=self.device)
        drawn = algorithm.draw(1, len(labels), torch.Generator(self.device).manual_seed(0))
        losses: list[float] = []
        seen: list[Seen] = []
        with torch.no_grad():
            for stage in algorithm.stages(state, support_x, support_y, drawn, stops(steps)):
                losses += stage.losses[:, 0].tolist()
                probabilities = None
                if query is not None:
                    logits = stage.learner.inductive(self._floats([query]))
                    probabilities = logits[0, 0].float().softmax(0).tolist()
                seen.append(Seen(stage.steps, probabilities))
        return Answer(losses, seen, 1000 * (perf_counter() - begun))

    def _build(self, way: int, steps: int) -> tuple[ReptileBase, MetaState]:
        """The algorithm for so many classes, and the weights with a head for them."""
        own = self.learned.config
        config = for_classes(own, way, steps)
        algorithm = build_algorithm(config, self.shape, self.device)
        if not isinstance(algorithm, ReptileBase):
            raise ConfigError(
                f"{self.learned.name} was trained by {own.method.algorithm}; the demo shows how weights of reptile or "
                "foml adapt"
            )
        if self.learned.state.params.keys() != algorithm.shapes.keys():
            raise ConfigError(f"{self.learned.name} is of a network of your own; the demo shows the built-in ones")
        learned = with_outputs(self.learned, algorithm)
        learned.require_fit(algorithm)
        return algorithm, learned.state.mapped(lambda tensor: tensor.to(self.device))

    def _floats(self, images: list[Pixels]) -> Tensor:
        """(1, N, C, H, W) from 0 to 1."""
        return as_shown(torch.from_numpy(np.stack(images)), self.learned.config, self.device)


def stops(steps: int) -> list[int]:
    """After which of ``steps`` inner steps to look: first and last, close together where most happens."""
    return sorted({0, *np.geomspace(1, steps, STAGES - 1).round().astype(int).tolist()})
