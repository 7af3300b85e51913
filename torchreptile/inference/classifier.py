"""FewShotClassifier: a handful of labelled images in, a classifier out, in scikit-learn's manners."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from torchreptile.algorithms import build_algorithm
from torchreptile.algorithms.base import Adapted, Algorithm, MetaState
from torchreptile.core.config import Config
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError, DataError, NotFittedError, RunError
from torchreptile.data.own_images.decode import Scaling
from torchreptile.inference import classifier_file
from torchreptile.inference.estimator import Estimator
from torchreptile.inference.image_input import as_images, as_shown
from torchreptile.inference.resize_head import for_classes, with_outputs
from torchreptile.models.blueprint import Network
from torchreptile.training.weights import MetaWeights, load_weights

if TYPE_CHECKING:
    from torchreptile.inference.export import Notes

AVERAGES = ("running_mean", "running_var", "num_batches_tracked")  # BatchNorm's, which are not used
QUERIES_AT_A_TIME = 64  # bounds memory


class FewShotClassifier(Estimator):
    """Learns classes that meta-training never saw from a few images of each.

    Example:
        >>> classifier = FewShotClassifier("omniglot-5way").fit(["alpha.png", "beta.png"], ["alpha", "beta"])
        >>> classifier.predict("unknown.png")  # array(['beta'])

    Any number of classes will do, and each may have another number of images. Where it is not the number that the
    weights were trained for, the network gets a head of that size: see
    :func:`torchreptile.inference.resize_head.with_outputs`.

    Attributes:
        classes_: (K,) the labels that :meth:`fit` saw, sorted.
        image_shape_: (C, H, W) that images are brought to.
    """

    def __init__(
        self,
        weights: str | Path | MetaWeights | nn.Module = "omniglot-5way",
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
            weights: the name of shipped weights, a run folder, a weights file, what ``load_weights`` gave, or a module
                of your own, from whose weights the steps then start (a copy; yours is left as it is).
            network: what the weights belong to, if not the network published with their algorithm.
            image_shape: (C, H, W) for a module of your own; weights know theirs.
            steps: inner steps on the support set; by default as many as in the weights' own evaluation, and in
                proportion more for more classes than they were trained for.
            batch: images in an inner mini-batch; by default likewise, in proportion to the number of classes. Steps of
                adam grow with it.
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
            images: N of them, in any form that :func:`torchreptile.inference.image_input.as_images` takes.
            labels: N labels: strings, numbers, anything that can be sorted; at least two different ones.

        Raises:
            DataError: images or labels cannot be used.
            ConfigError, RunError: the weights or settings cannot.
        """
        labels = _labels(labels)
        names, y = np.unique(labels, return_inverse=True)
        learned, shape, network = self._source()
        support = as_images(images, shape, _scaling(learned))
        if len(support) != len(y):
            raise DataError(f"there are {len(support)} images and {len(y)} labels")
        if len(names) < 2:
            raise DataError(f"there is one class, {names.tolist()[0]!r}; at least two are needed to tell apart")
        device = choose_device(self.device)
        algorithm = build_algorithm(self._settings(learned, len(names)), shape, device, network=network)
        self._adapt(algorithm, self._state(learned, algorithm), support, torch.from_numpy(y))
        self.classes_: NDArray[Any] = names
        self._learned = learned
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
        queries = as_shown(self.prepared(images), self._algorithm.config, self._device)
        with torch.no_grad():
            if self._set["transductive"]:
                logits = self._adapted.transductive(queries)
            else:
                parts = torch.split(queries, QUERIES_AT_A_TIME, dim=1)
                logits = torch.cat([self._adapted.inductive(part) for part in parts], dim=1)
        probabilities: NDArray[np.float32] = logits[0].float().softmax(1).cpu().numpy()
        return probabilities

    def score(self, images: Any, labels: Iterable[Any]) -> float:
        """The share of images whose predicted label is the given one, from 0 to 1."""
        truth, answers = _labels(labels), self.predict(images)
        if (truth.dtype.kind == "U") != (answers.dtype.kind == "U"):
            raise DataError(f"labels are {truth.dtype.name}, and those it was fitted with {answers.dtype.name}")
        if len(truth) != len(answers):
            raise DataError(f"there are {len(answers)} images and {len(truth)} labels")
        return float((answers == truth).mean())

    def save(self, path: str | Path) -> None:
        """Write what was fitted: ``path``, which ends in .safetensors, and a .json beside it. They hold the weights
        before and after adapting, and the support set, for its images are the company in which others are labelled.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            ConfigError, DataError, RunError: the name, the labels or a file in the way.
        """
        self._require_fitted()
        state, config = self._algorithm.settled(self._state_before, self._adapted)
        before, evaluation = self._state_before.params, config.evaluation
        what = classifier_file.Remembered(
            self._learned or self._own_module(),
            adapted={name: p for name, p in state.params.items() if p is not before[name]},
            evaluation={"eval_steps": evaluation.eval_steps, "finetune_steps": evaluation.finetune_steps},
            support=self._support,
            labels=self._labels,
            classes=self.classes_,
            settings=self._set,
        )
        classifier_file.write(what, Path(path))

    def export(self, path: str | Path) -> Notes:
        """Write it as a program that needs none of this package: see :mod:`torchreptile.inference.export`.

        Args:
            path: .pt2 for torch.export, .onnx for ONNX (``pip install 'torchreptile[onnx]'``).

        Returns:
            What the program expects, and its classes.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            ConfigError: another suffix, queries labelled together, or the packages for ONNX are missing.
            RunError: the network cannot be exported.
        """
        from torchreptile.inference.export import export

        self._require_fitted()
        if self._set["transductive"]:
            raise ConfigError("transductive is True; a program labels each image alone, so fit without it")
        state, config = self._algorithm.settled(self._state_before, self._adapted)
        network, cpu = self._network, torch.device("cpu")
        plain = build_algorithm(config.replace(execution="loop"), self.image_shape_, cpu, network=network)
        state = state.mapped(lambda tensor: tensor.to(cpu))
        drawn = plain.draw(1, len(self._support), torch.Generator().manual_seed(self._set["seed"]))
        with torch.no_grad():
            adapted = plain.adapt(state, as_shown(self._support, config, cpu), self._labels[None], drawn)
        classes = [str(name) for name in self.classes_.tolist()]
        # Held against the classifier on what it learned from, and mirrored, where it is less sure.
        examples = torch.cat([self._support, self._support.flip(-1)])
        expected = self.predict_proba(examples)
        scaling = _scaling(self._learned)
        return export(adapted, config.task.inverted, scaling, classes, examples / 255, expected, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, network: Network | None = None, device: str = "cpu") -> Self:
        """What :meth:`save` wrote, answering as it did, up to rounding; fitted again, it starts from the weights
        before adapting.

        Args:
            path: the .safetensors file.
            network: what the weights belong to, if not the network published with their algorithm: files hold no code.
            device: cpu, cuda, cuda:N or auto.

        Raises:
            RunError: it cannot be read.
            ConfigError: the network is another.
        """
        what = classifier_file.read(Path(path))
        classifier = cls(what.learned, network=network, device=device, **what.settings)
        shape, on = what.learned.config.task.image_shape, choose_device(device)
        settings = classifier._settings(what.learned, len(what.classes)).replace(**what.evaluation)
        algorithm = build_algorithm(settings, shape, on, network=network)
        state = classifier._state(what.learned, algorithm)
        state = replace(state, params=state.params | what.adapted)
        if not algorithm.fits(state.params):
            raise RunError(f"{path} is damaged: its adapted weights do not fit its network")
        classifier._adapt(algorithm, state, what.support, what.labels)
        classifier.classes_, classifier._learned = what.classes, what.learned
        return classifier

    def prepared(self, images: Any) -> Tensor:
        """Images in any form that :meth:`fit` takes, as the network gets to see them: (N, C, H, W) uint8.

        Raises:
            NotFittedError: :meth:`fit` was not called.
            DataError: the images cannot be used.
        """
        self._require_fitted()
        return as_images(images, self.image_shape_, _scaling(self._learned))

    @property
    def support_(self) -> dict[str, Tensor]:
        """What it learned from, in the network's size: by the name of the class, (n, C, H, W) uint8 images."""
        self._require_fitted()
        return {str(name): self._support[self._labels == place] for place, name in enumerate(self.classes_)}

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn, where it is installed, must know to take it for a classifier."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier", target_tags=TargetTags(required=True), classifier_tags=ClassifierTags()
        )

    def _adapt(self, algorithm: Algorithm, state: MetaState, support: Tensor, labels: Tensor) -> None:
        """Become a classifier of these ``support`` images (N, C, H, W) uint8 and ``labels`` (N,)."""
        device = choose_device(self.device)
        state = state.mapped(lambda tensor: tensor.to(device))
        generator = torch.Generator(device).manual_seed(self.seed)
        drawn = algorithm.draw(1, len(support), generator)
        with torch.no_grad(), algorithm.own_draws(generator):
            shown = as_shown(support, algorithm.config, device)
            self._adapted: Adapted = algorithm.adapt(state, shown, labels.to(device)[None], drawn)
        self._algorithm, self._state_before, self._support, self._labels = algorithm, state, support, labels
        self._device = device
        # What was set when this was learned; later changes count from the next fit.
        self._set: dict[str, Any] = {name: getattr(self, name) for name in ("steps", "batch", "transductive", "seed")}
        self._network = self._own_network()
        channels, height, width = algorithm.blueprint.image_shape
        self.image_shape_ = (channels, height, width)

    def _own_module(self) -> MetaWeights:
        """A module of one's own as meta-learned weights."""
        assert isinstance(self.weights, nn.Module)
        kept = [name for name, _ in self.weights.named_buffers() if name.rpartition(".")[2] not in AVERAGES]
        if kept:
            raise ConfigError(
                f"{type(self.weights).__name__} keeps {', '.join(kept)} in buffers, which a file of weights does not "
                "hold; make them constants of its code, or parameters"
            )
        channels, side, _ = self.image_shape_
        config = self._algorithm.config.replace(dataset="folder", data="own", image_size=side, grey=channels == 1)
        return MetaWeights(type(self.weights).__name__, config, self._state_before, 0, None)

    def _require_fitted(self) -> None:
        if "_adapted" not in self.__dict__:
            raise NotFittedError(f"{self!r} has seen no images yet; call fit(images, labels) first")

    def _source(self) -> tuple[MetaWeights | None, tuple[int, int, int], Network | None]:
        """The weights (none for a module of one's own), the shape of their images, and their network."""
        if isinstance(self.weights, nn.Module):
            if self.image_shape is None:
                raise ConfigError("weights is a module of your own; give image_shape, its images' (C, H, W), too")
            return None, self.image_shape, self._own_network()
        learned = self.weights if isinstance(self.weights, MetaWeights) else load_weights(self.weights)
        if learned.config.task.regression:
            raise ConfigError(f"{learned.name} fits functions; FewShotRegressor is the one for it")
        return learned, learned.config.task.image_shape, self._own_network()

    def _own_network(self) -> Network | None:
        """What makes the network, if it is not the one published with the algorithm."""
        module = self.weights
        if isinstance(module, nn.Module):
            return lambda image_shape, outputs: copy.deepcopy(module)
        return self.network

    def _settings(self, learned: MetaWeights | None, way: int) -> Config:
        """Those of the weights, for this many classes."""
        own = learned.config if learned is not None else Config()
        return for_classes(own, way, self.steps, self.batch)

    def _state(self, learned: MetaWeights | None, algorithm: Algorithm) -> MetaState:
        """What adapting begins with."""
        if learned is None:
            assert isinstance(self.weights, nn.Module)
            return algorithm.initial_state({name: p.detach() for name, p in self.weights.named_parameters()})
        learned = with_outputs(learned, algorithm)
        learned.require_fit(algorithm)
        return learned.state


def _scaling(learned: MetaWeights | None) -> Scaling:
    """How images are brought to what the weights were trained on."""
    return "lines" if learned is not None and learned.config.task.drawn_by_hand else "lanczos"


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
    mixed = (
        given.dtype.kind == "U" and not isinstance(labels, np.ndarray) and not all(isinstance(x, str) for x in labels)
    )
    if mixed or given.dtype.kind == "O":
        raise DataError(
            "labels are of several kinds, or of one that cannot be sorted; give strings alone or numbers alone"
        )
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise DataError("a label is NaN; give every image a label")
    return given
