"""FewShotClassifier: a handful of labelled images in, a classifier out, in scikit-learn's manners."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchreptile.algorithms import Adapted, Algorithm, MetaState, build_algorithm
from torchreptile.config import Config
from torchreptile.device import choose_device
from torchreptile.errors import ConfigError, DataError, NotFittedError
from torchreptile.estimator import Estimator
from torchreptile.given_images import as_images
from torchreptile.heads import with_outputs
from torchreptile.learned import Learned, load_learned
from torchreptile.models import Network

QUERIES_AT_A_TIME = 64  # bounds memory


class FewShotClassifier(Estimator):
    """Learns classes that meta-training never saw from a few images of each.

    Example:
        >>> classifier = FewShotClassifier("omniglot-5way").fit(["alpha.png", "beta.png"], ["alpha", "beta"])
        >>> classifier.predict("unknown.png")  # array(['beta'])

    Any number of classes will do, and each may have another number of images. Where it is not the number that the
    weights were trained for, the network gets a head of that size: see :func:`torchreptile.heads.with_outputs`.

    Attributes:
        classes_: (K,) the labels that :meth:`fit` saw, sorted.
        image_shape_: (C, H, W) that images are brought to.
    """

    def __init__(
        self,
        weights: str | Path | Learned | nn.Module = "omniglot-5way",
        *,
        network: Network | None = None,
        image_shape: tuple[int, int, int] | None = None,
        steps: int | None = None,
        batch: int | None = None,
        transductive: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Keeps the settings; nothing is read before :meth:`fit`.

        Args:
            weights: the name of shipped weights, a run folder, a weights file, what ``load_learned`` gave, or a module
                of your own, from whose weights the steps then start (a copy; yours is left as it is).
            network: what the weights belong to, if not the network published with their algorithm.
            image_shape: (C, H, W) for a module of your own; weights know theirs.
            steps: inner steps on the support set; by default as many as in the weights' own evaluation.
            batch: images in an inner mini-batch; by default likewise, in proportion to the number of classes.
            transductive: label all images of one call together, so that what is said of one depends on the others. By
                default each is labelled alone.
            seed: of the mini-batches.
            device: cpu, cuda, cuda:N or auto.
        """
        self.weights, self.network, self.image_shape = weights, network, image_shape
        self.steps, self.batch, self.transductive = steps, batch, transductive
        self.seed, self.device = seed, device

    def fit(self, images: Any, labels: Iterable[Any]) -> Self:
        """Adapt to a support set.

        Args:
            images: N of them, in any form that :func:`torchreptile.given_images.as_images` takes.
            labels: N labels: strings, numbers, anything that can be sorted; at least two different ones.

        Raises:
            DataError: images or labels cannot be used.
            ConfigError, RunError: the weights or settings cannot.
        """
        names, y = np.unique(_labels(labels), return_inverse=True)
        if len(names) < 2:
            raise DataError(f"there is one class, {names[0]!r}; at least two are needed to tell apart")
        learned, shape, network = self._source()
        support = as_images(images, shape)
        if len(support) != len(y):
            raise DataError(f"there are {len(support)} images and {len(y)} labels")
        device = choose_device(self.device)
        algorithm = build_algorithm(self._settings(learned, len(names)), shape, device, network=network)
        state = self._state(learned, algorithm).mapped(lambda tensor: tensor.to(device))
        generator = torch.Generator(device).manual_seed(self.seed)
        drawn = algorithm.draw(1, len(support), generator)
        with torch.no_grad():
            self._adapted: Adapted = algorithm.adapt(
                state, _floats(support, device), torch.from_numpy(y).to(device)[None], drawn
            )
        self.classes_: NDArray[Any] = names
        self.image_shape_ = shape
        self._device = device
        return self

    def predict(self, images: Any) -> NDArray[Any]:
        """The likeliest label of each image, (N,); one image gives one label, (1,).

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the images cannot be used.
        """
        probabilities = self.predict_proba(images)
        best: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return best

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """How sure it is of each of ``classes_``, (N, K): the softmax of the network's outputs.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the images cannot be used.
        """
        self._require_fitted()
        queries = _floats(as_images(images, self.image_shape_), self._device)
        with torch.no_grad():
            if self.transductive:
                logits = self._adapted.together(queries)
            else:
                parts = torch.split(queries, QUERIES_AT_A_TIME, dim=1)
                logits = torch.cat([self._adapted.alone(part) for part in parts], dim=1)
        probabilities: NDArray[np.float32] = logits[0].float().softmax(1).cpu().numpy()
        return probabilities

    def score(self, images: Any, labels: Iterable[Any]) -> float:
        """The share of images whose predicted label is the given one, from 0 to 1."""
        truth, answers = _labels(labels), self.predict(images)
        if len(truth) != len(answers):
            raise DataError(f"there are {len(answers)} images and {len(truth)} labels")
        return float((answers == truth).mean())

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, where it is installed, must know to take it for a classifier."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier", target_tags=TargetTags(required=True), classifier_tags=ClassifierTags()
        )

    def _require_fitted(self) -> None:
        if "_adapted" not in self.__dict__:
            raise NotFittedError(f"{self!r} has seen no images yet; call fit(images, labels) first")

    def _source(self) -> tuple[Learned | None, tuple[int, int, int], Network | None]:
        """The weights (none for a module of one's own), the shape of their images, and their network."""
        if isinstance(self.weights, nn.Module):
            if self.image_shape is None:
                raise ConfigError("weights is a module of your own; give image_shape, its images' (C, H, W), too")
            module = self.weights
            return None, self.image_shape, lambda image_shape, outputs: copy.deepcopy(module)
        learned = self.weights if isinstance(self.weights, Learned) else load_learned(self.weights)
        if learned.config.task.regression:
            raise ConfigError(f"{learned.name} fits functions; FewShotRegressor is the one for it")
        return learned, learned.config.task.image_shape, self.network

    def _settings(self, learned: Learned | None, way: int) -> Config:
        """Those of the weights, for this many classes."""
        own = learned.config if learned is not None else Config()
        # Every class is in a mini-batch as often as in the weights' own evaluation.
        batch = self.batch or math.ceil(own.evaluation.eval_batch * way / own.task.way)
        return own.replace(
            way=way,
            eval_steps=own.evaluation.eval_steps if self.steps is None else self.steps,
            eval_batch=batch,
            # How training tasks were made says nothing here, and must not stand in the way.
            inner_batch=1,
            execution="auto",
            precision="fp32",
            task_chunk=0,
        )

    def _state(self, learned: Learned | None, algorithm: Algorithm) -> MetaState:
        """What adapting begins with."""
        if learned is None:
            assert isinstance(self.weights, nn.Module)
            return algorithm.initial_state({name: p.detach() for name, p in self.weights.named_parameters()})
        learned = with_outputs(learned, algorithm)
        learned.require_fit(algorithm)
        return learned.state


def _floats(images: Tensor, device: torch.device) -> Tensor:
    """(N, C, H, W) uint8 -> (1, N, C, H, W) from 0 to 1, as episodes have them."""
    return images.to(device).to(torch.float32).div_(255)[None]


def _labels(labels: Iterable[Any]) -> NDArray[Any]:
    """(N,) labels.

    Raises:
        DataError: they are nested, none, or a string.
    """
    if isinstance(labels, str):
        raise DataError(f"labels is the string {labels!r}; give a list with one label per image")
    given = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else list(labels))
    if given.ndim != 1 or not len(given):
        raise DataError(f"labels have the shape {given.shape}; give one label per image, (N,)")
    return given
