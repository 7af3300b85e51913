"""Every episode of an evaluation as a table: its score, its classes, its images and their predicted labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchreptile.core.csv_text import write_rows
from torchreptile.core.data_frame import data_frame
from torchreptile.core.files import replacing
from torchreptile.data.functions.sine import Sines
from torchreptile.data.functions.tables import Tables
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler, RowSampler, Sampler
from torchreptile.models.losses import NO_ANSWER
from torchreptile.training.evaluation.measure import EpisodeScores, episode_indices

Columns = dict[str, NDArray[Any]]
AT_A_TIME = 1000  # episodes written at a time, to bound memory


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """Every episode of an evaluation: a row per image, or per episode where tasks are functions.

    Attributes:
        scores: scores and predicted labels of every episode.
        classes: (episodes, way) the classes of the store, or its tasks; None for functions that are drawn anew.
        images: (episodes, way, shots + queries) images of the store, the support set first; None for functions.
        shots: support images per class.
        class_names: names of the store's classes, or tasks.
        image_names: names of the store's images.

    The columns are ``episode``, counted from 0; the scores of the episode, such as ``transductive`` and ``inductive``;
    then, for images, ``class``, ``role`` (support or query), ``image``, and what a query was labelled as, such as
    ``predicted_inductive``, which is None for support images and where the network diverged. For functions from a
    table, ``task``.
    """

    scores: EpisodeScores
    classes: NDArray[np.int32] | None
    images: NDArray[np.int32] | None
    shots: int
    class_names: NDArray[Any]
    image_names: NDArray[Any]

    @classmethod
    def of(cls, scores: EpisodeScores, sampler: Sampler, episodes: int, seed: int) -> EpisodeTable:
        """Return the table of an evaluation, whose episodes depend on sampler and seed alone.

        Args:
            scores: the scores of the evaluation.
            sampler: drew its episodes.
            episodes: their number.
            seed: seed of the evaluation.
        """
        store, classes, images = sampler.store, None, None
        image_names = store.names_of_images() if isinstance(store, ImageStore) else ()
        names = () if isinstance(store, Sines) else store.task_names if isinstance(store, Tables) else store.class_names
        if isinstance(sampler, EpisodeSampler | RowSampler):
            classes, images = (part.numpy() for part in episode_indices(sampler, episodes, seed))
        shots = sampler.shots if isinstance(sampler, EpisodeSampler) else 0
        images = images if isinstance(sampler, EpisodeSampler) else None
        return cls(scores, classes, images, shots, np.array(names, dtype=object), np.array(image_names, dtype=object))

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.scores.diverged)

    def frame(self) -> Any:
        """Return the table as a pandas DataFrame.

        Raises:
            ConfigError: pandas is not installed.
        """
        return data_frame(self._columns(slice(0, len(self))))

    def write_csv(self, path: Path) -> None:
        """Write the table as a csv file, atomically.

        Text that a spreadsheet would take for a formula is written with a quote before it: see
        :func:`torchreptile.core.csv_text.csv_cell`.
        """
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            for start in range(0, len(self), AT_A_TIME):
                columns = self._columns(slice(start, start + AT_A_TIME))
                if not start:
                    write_rows(file, [list(columns)])
                write_rows(file, _rows(columns))

    def _columns(self, part: slice) -> Columns:
        """Return the columns of some episodes, one value per row."""
        numbers = np.arange(len(self))[part]
        scores = {name: values[part].numpy() for name, values in self.scores.scores.items()}
        if self.images is None:
            tasks = {} if self.classes is None else {"task": self.class_names[self.classes[part, 0]]}
            return {"episode": numbers, **tasks, **scores}
        classes, images = self.classes[part], self.images[part]  # type: ignore[index]
        episodes, way, members = images.shape
        roles = np.array(["support"] * self.shots + ["query"] * (members - self.shots), dtype=object)
        return {
            "episode": numbers.repeat(way * members),
            **{name: values.repeat(way * members) for name, values in scores.items()},
            "class": self.class_names[classes].repeat(members),
            "role": np.tile(roles, episodes * way),
            "image": self.image_names[images].ravel(),
            **{f"predicted_{mode}": self._predicted(mode, part).ravel() for mode in self.scores.predicted},
        }

    def _predicted(self, mode: str, part: slice) -> NDArray[Any]:
        """Return the (episodes, way, shots + queries) predicted class names, None for support images."""
        assert self.images is not None
        assert self.classes is not None
        classes, predicted = self.classes[part], np.full(self.images[part].shape, None, dtype=object)
        labels = self.scores.predicted[mode][part].numpy().astype(np.int64)
        names = self.class_names[np.take_along_axis(classes, labels.clip(min=0), 1)]
        names[labels == NO_ANSWER] = None
        predicted[:, :, self.shots :] = names.reshape(*classes.shape, -1)
        return predicted


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of columns as plain Python values."""
    yield from zip(*(values.tolist() for values in columns.values()), strict=True)
