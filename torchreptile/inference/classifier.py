"""FewShotClassifier: a classifier from a few labelled images of each class, with the interface of scikit-learn."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError, DataError, NotFittedError, RunError
from torchreptile.inference import classifier_file
from torchreptile.inference.classifier_file import FIT_SETTINGS
from torchreptile.inference.estimator import Estimator
from torchreptile.inference.fitted_classifier import FittedClassifier, StartingPoint, SupportSet
from torchreptile.inference.image_input import as_images
from torchreptile.inference.rejection import check_rate
from torchreptile.models.blueprint import Network
from torchreptile.training.weights import MetaWeights, load_weights

if TYPE_CHECKING:
    from torchreptile.inference.export import ProgramInfo


class FewShotClassifier(Estimator):
    """A classifier that adapts meta-learned weights to new classes, from a few images of each.

    Any number of classes works, and classes may have different numbers of images. If the weights were trained for
    another number of classes, the head is resized; see :func:`torchreptile.training.resize_head.with_outputs`.

    Attributes:
        classes_: (K,) sorted labels of the support set; with ``reject`` the label of rejected images follows.
        image_shape_: (C, H, W) of the network's images; other images are resized to it.
        support_: images of the support set by class, (n, C, H, W) uint8.
        fitted_: the adapted network with everything it depends on.

    Example:
        >>> from torchreptile.data.glyphs import generate
        >>> images = generate(characters=3, drawings=2).images.reshape(3, 2, 1, 28, 28)
        >>> classifier = FewShotClassifier("glyphs-5way").fit(images[:, 0], ["a", "b", "c"])
        >>> classifier.predict(images[:, 1]).tolist()
        ['a', 'b', 'c']
    """

    def __init__(
        self,
        weights: str | Path | MetaWeights | nn.Module = "omniglot-5way",
        *,
        network: Network | None = None,
        image_shape: tuple[int, ...] | None = None,
        steps: int | None = None,
        batch: int | None = None,
        inner_lr: float | None = None,
        balanced: bool = True,
        transductive: bool = False,
        reject: float | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        """Store the settings; nothing is loaded before :meth:`fit`.

        Args:
            weights: name of shipped weights, run folder, weights file, return value of ``load_weights``, or a custom
                module, whose weights are the starting point (a copy is adapted).
            network: the network of the weights, if it is not the one published with the algorithm.
            image_shape: (C, H, W) of a custom module's images, or (C, L) of its series; weights have their own.
            steps: inner steps on the support set; by default those of the weights' evaluation, and proportionally more
                for more classes than the weights were trained for.
            batch: images in an inner batch; by default that of the weights' evaluation, in proportion to the number of
                classes. The steps of Adam become larger with it.
            inner_lr: learning rate of the inner steps; by default that of the weights' training.
            balanced: draw every class equally often for the inner batches, so that classes with fewer images than
                others are recognised better; it matters only where classes have different numbers of images.
            transductive: classify all images of a call in one batch, so that they influence each other; by default each
                image is classified alone (inductive).
            reject: recognise images of none of the classes, at the price of about this share of known images, such as
                0.05; see :mod:`torchreptile.inference.rejection`. Their label, the last of ``classes_``, is ``none of
                these`` among strings and -1 among numbers.
            seed: seed of the inner batches.
            device: cpu, cuda, cuda:N or auto.
        """
        self.weights, self.network, self.image_shape = weights, network, image_shape
        self.steps, self.batch, self.inner_lr, self.balanced = steps, batch, inner_lr, balanced
        self.transductive, self.reject, self.seed, self.device = transductive, reject, seed, device
        self._fitted: FittedClassifier | None = None

    def fit(self, images: Any, labels: Iterable[Any]) -> Self:
        """Adapt to a support set.

        Args:
            images: N images in any form that :func:`torchreptile.inference.image_input.as_images` takes.
            labels: N strings, numbers or other sortable values; at least two different ones.

        Raises:
            DataError: images or labels cannot be used.
            ConfigError: the settings do not fit the weights.
            RunError: the weights cannot be loaded.
            DivergedError: the adapted weights are not finite numbers.
        """
        settings = self._fit_settings()
        check_rate(settings["reject"])
        classes, indices = np.unique(_labels(labels), return_inverse=True)
        start = self._start()
        support = SupportSet(as_images(images, start.image_shape, start.scaling), torch.from_numpy(indices), classes)
        if len(support.images) != len(support.labels):
            raise DataError(f"there are {len(support.images)} images and {len(support.labels)} labels")
        if len(classes) < 2:
            raise DataError(f"there is one class, {classes.tolist()[0]!r}; give at least two")
        device = choose_device(self.device)
        config = start.config(len(classes), settings["steps"], settings["batch"], settings["inner_lr"])
        algorithm = build_algorithm(config, start.image_shape, device, network=start.network)
        state = start.state(algorithm)
        fitted = FittedClassifier.adapt(start, algorithm, state, support, settings, device)
        self._fitted = fitted if settings["reject"] is None else fitted.rejecting(settings["reject"])
        return self

    def predict(self, images: Any) -> NDArray[Any]:
        """Return the most probable label of each image, (N,); a single image gives (1,).

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the images cannot be used.
            DivergedError: the network's outputs for an image are not finite numbers.
        """
        probabilities = self.predict_proba(images)
        best: NDArray[Any] = self.classes_[probabilities.argmax(1)]
        return best

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """Return the probability of each of ``classes_``, (N, K): the softmax of the network's outputs.

        With ``reject`` they are (N, K + 1), the last one that of none of the classes.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the images cannot be used.
            DivergedError: the network's outputs for an image are not finite numbers.
        """
        return self.fitted_.probabilities(self.fitted_.prepare(images))

    def score(self, images: Any, labels: Iterable[Any]) -> float:
        """Return the share of images whose predicted label is the given one, from 0 to 1.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: images or labels cannot be used, or labels are of another type than those of :meth:`fit`.
        """
        truth, predicted = _labels(labels), self.predict(images)
        if (truth.dtype.kind == "U") != (predicted.dtype.kind == "U"):
            raise DataError(f"labels are {truth.dtype.name}, and those it was fitted with {predicted.dtype.name}")
        if len(truth) != len(predicted):
            raise DataError(f"there are {len(predicted)} images and {len(truth)} labels")
        return float((predicted == truth).mean())

    def prepare(self, images: Any) -> Tensor:
        """Return images in any form that :meth:`fit` takes as the network gets them: (N, C, H, W) uint8.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the images cannot be used.
        """
        return self.fitted_.prepare(images)

    def save(self, path: str | Path) -> None:
        """Write the fitted classifier to a .safetensors file and a .json card of the same name.

        The file holds the weights before and after adaptation and the support set, whose images share a batch with
        every query.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            ConfigError: ``path`` has another suffix, or a custom module has buffers.
            DataError: the labels are neither strings, numbers nor truth values.
            RunError: the card would replace a .json file that is not a card.
        """
        classifier_file.write(self.fitted_.saved(), Path(path))

    @classmethod
    def load(cls, path: str | Path, *, network: Network | None = None, device: str = "cpu") -> Self:
        """Load a classifier that :meth:`save` wrote.

        Its predictions are the same up to rounding; :meth:`fit` starts from the weights before adaptation.

        Args:
            path: the .safetensors file.
            network: the network of the weights, if it is not the one published with the algorithm; files hold no code.
            device: cpu, cuda, cuda:N or auto.

        Raises:
            RunError: the file cannot be read.
            ConfigError: the weights do not fit the network.
        """
        saved = classifier_file.read(Path(path))
        classifier = cls(saved.weights, network=network, device=device, **saved.settings)
        start, target = classifier._start(), choose_device(device)
        support, settings = SupportSet(saved.support, saved.labels, saved.classes), classifier._fit_settings()
        try:
            fitted = FittedClassifier.restored(
                start, saved.adapted, saved.evaluation, support, settings, target, saved.rejection
            )
        except RunError as error:
            raise RunError(f"{path}: {error}") from error
        classifier._fitted = fitted
        return classifier

    def export(self, path: str | Path) -> ProgramInfo:
        """Export the fitted classifier as a program that runs without this package.

        See :mod:`torchreptile.inference.export` for its input and output.

        Args:
            path: .pt2 for torch.export, .onnx for ONNX (``pip install 'torchreptile[onnx]'``).

        Returns:
            The classes of the program and the images it takes.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            ConfigError: another suffix, a transductive classifier, or the packages for ONNX are missing.
            RunError: the network cannot be exported.
        """
        from torchreptile.inference.export import export

        fitted = self.fitted_
        if fitted.settings["transductive"]:
            raise ConfigError(
                "transductive is True, but a program labels each image alone; fit with transductive=False"
            )
        classes = [str(name) for name in self.classes_.tolist()]
        # The program is compared with the classifier on the support set and on its mirror images, which are harder.
        examples = torch.cat([fitted.support.images, fitted.support.images.flip(-1)])
        expected = fitted.probabilities(examples)
        inverted = fitted.algorithm.config.task.inverted
        return export(
            fitted.in_plain_torch(), fitted.shares, inverted, fitted.start.scaling, classes, examples / 255, expected,
            Path(path),
        )  # fmt: skip

    @property
    def fitted_(self) -> FittedClassifier:
        """The adapted network with everything it depends on."""
        if self._fitted is None:
            raise NotFittedError(f"{self!r} is not fitted; call fit(images, labels) first")
        return self._fitted

    @property
    def classes_(self) -> NDArray[Any]:
        """(K,) sorted labels of the support set; with ``reject`` the label of rejected images follows."""
        return self.fitted_.classes

    @property
    def image_shape_(self) -> tuple[int, ...]:
        """(C, H, W) of the network's images, or (C, L) of its series."""
        return self.fitted_.start.image_shape

    @property
    def support_(self) -> dict[str, Tensor]:
        """Images of the support set by class, (n, C, H, W) uint8 of the network's size."""
        support = self.fitted_.support
        return {str(name): support.images[support.labels == index] for index, name in enumerate(support.classes)}

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether :meth:`fit` was called, for scikit-learn's ``check_is_fitted``."""
        return self._fitted is not None

    def __sklearn_tags__(self) -> Any:
        """Return the tags by which scikit-learn recognises a classifier."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier", target_tags=TargetTags(required=True), classifier_tags=ClassifierTags()
        )

    def _fit_settings(self) -> dict[str, Any]:
        """The settings that a fitted classifier stays with; later changes count from the next fit.

        Numbers of numpy, such as a grid search gives, become Python's.
        """
        given = {name: getattr(self, name) for name in FIT_SETTINGS}
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}

    def _start(self) -> StartingPoint:
        """The weights to start from.

        Raises:
            ConfigError: the weights fit functions, or ``image_shape`` of a custom module is missing.
            RunError: the weights cannot be loaded.
        """
        if isinstance(self.weights, nn.Module):
            return StartingPoint.of_module(self.weights, _shape(self.image_shape))
        weights = self.weights if isinstance(self.weights, MetaWeights) else load_weights(self.weights)
        if weights.config.task.regression:
            raise ConfigError(f"{weights.name} fits functions; use FewShotRegressor")
        return StartingPoint(weights, self.network, weights.config.task.image_shape)


def _shape(given: Any) -> tuple[int, ...]:
    """Return the shape of a custom module's inputs as whole numbers.

    Raises:
        ConfigError: it is missing, or not (C, H, W) or (C, L).
    """
    if given is None:
        raise ConfigError("weights is a custom module; give image_shape, the (C, H, W) of its images, too")
    try:
        sizes = tuple(operator.index(size) for size in given)
    except TypeError:
        sizes = ()
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise ConfigError(f"image_shape is {given!r}; it must be (C, H, W) of images, or (C, L) of series")
    return sizes


def _labels(labels: Iterable[Any]) -> NDArray[Any]:
    """Return (N,) labels as an array.

    Raises:
        DataError: the labels are empty, nested, a string, of mixed types, or NaN.
    """
    if isinstance(labels, str):
        raise DataError(f"labels is the string {labels!r}; give a list with one label per image")
    given = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else list(labels))
    if given.ndim != 1 or not len(given):
        raise DataError(f"labels have the shape {given.shape}; give one label per image, (N,)")
    mixed = (
        given.dtype.kind == "U" and not isinstance(labels, np.ndarray) and not all(isinstance(x, str) for x in labels)
    )
    if mixed or given.dtype.kind == "O":
        raise DataError(
            "labels are of mixed types, or of a type that cannot be sorted; give strings only or numbers only"
        )
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise DataError("a label is NaN; give every image a label")
    return given
