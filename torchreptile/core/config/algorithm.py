"""What the package knows of an algorithm without loading torch: its settings, traits and published numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchreptile.core.config.validation import check_types

if TYPE_CHECKING:
    from torchreptile.core.config.config import Config


@dataclass(frozen=True)
class AlgorithmSettings:
    """Which algorithm is trained."""

    # An algorithm's own settings are a dataclass derived from this one.

    algorithm: str = "reptile"
    """reptile; foml (first-order MAML as in the Reptile paper: the last inner step's change alone); maml (second-order,
    through the inner steps); fomaml (first-order MAML as in the MAML paper: the gradient of the query loss at the
    adapted weights); anil (MAML that adapts the head alone); meta-sgd (MAML that learns a rate for every weight);
    matching (Matching Networks); protonet (Prototypical Networks); pretrained (no meta-learning: the features of a
    classifier of all training classes); scratch (nothing trained before the task); mann (a network with an external
    memory); meta-lstm (a learned optimiser). Or your own, as FILE.py:CLASS."""

    def __post_init__(self) -> None:
        check_types(self)
        self.check_values()

    def check_values(self) -> None:
        """Refuse values that cannot work on their own; a subclass with settings overrides this.

        Raises:
            ConfigError: naming the setting, its value and what would work.
        """

    def check_with(self, config: Config) -> None:
        """Refuse values that cannot work with the other settings of ``config``.

        Raises:
            ConfigError: naming the setting, its value and what would work.
        """

    @property
    def reserved_images(self) -> int:
        """Images per class of a training task that the ordinary inner mini-batches leave out."""
        return 0


@dataclass(frozen=True)
class Published:
    """A published accuracy.

    Attributes:
        accuracy: percent.
        margin: percent, as printed in the source; None if none is printed.
        source: authors, year and table.

    Example:
        >>> str(Published(97.68, 0.04, "Nichol et al. 2018, table 2"))
        '97.68% ± 0.04'
    """

    accuracy: float
    margin: float | None
    source: str

    def __str__(self) -> str:
        return f"{self.accuracy:.2f}%" + ("" if self.margin is None else f" ± {self.margin:.2f}")


@dataclass(frozen=True)
class Form:
    """A published form of an algorithm: a title, and the settings that make it.

    Attributes:
        title: as in tables, such as ``Matching Networks, fine-tuned``.
        settings: flat names and values; a configuration has this form where all of them differ from their defaults.
    """

    title: str
    settings: Mapping[str, Any]


def _as_they_are(config: Config) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class AlgorithmRow:
    """An algorithm's row: everything but its computation.

    Attributes:
        name: as in ``--algorithm``.
        title: as in tables.
        implementation: ``module:Class``, imported when the algorithm is built.
        settings: dataclass of the algorithm's own settings.
        meta_learns: training changes weights.
        learns_from_queries: training tasks have a query set (``train_queries``).
        trains_by_steps: it adapts step by step in training tasks (``inner_steps``).
        plain_steps: its inner steps are the inner optimiser's, and nothing is differentiated through them.
        sgd_only: its inner steps must be plain SGD.
        adapts_by_steps: it adapts step by step in evaluation episodes (``eval_steps``).
        learns_rates: the learning rates of its inner steps are meta-learned, so ``inner_lr`` is where they start.
        compares_embeddings: it labels queries by comparing embeddings, which may be fine-tuned in a task.
        own_training_way: it can train with another way than it is tested with (``train_way``).
        fits_functions: it can fit functions as well as label images.
        transductive: its transductive accuracy can differ from its inductive one.
        own_inversion: it inverts its images itself, so ``inverted`` is refused.
        change_image_settings: (settings of Reptile for a task) -> what its own publication changes in them.
        change_function_settings: likewise where tasks are functions.
        forms: other published forms by suffix, such as ``fine-tuned``.
        published: by (form, data set, way, shots, transductive); form is empty for the algorithm as it is.
        extra_published: by (data set, way, measure), of measures that only this algorithm has.
        quoted: by shots, the extra measure that tables quote as its accuracy.
    """

    name: str
    title: str
    implementation: str
    settings: type[AlgorithmSettings] = AlgorithmSettings
    meta_learns: bool = True
    learns_from_queries: bool = False
    trains_by_steps: bool = True
    plain_steps: bool = False
    sgd_only: bool = False
    adapts_by_steps: bool = True
    learns_rates: bool = False
    compares_embeddings: bool = False
    own_training_way: bool = False
    fits_functions: bool = False
    transductive: bool = True
    own_inversion: bool = False
    change_image_settings: Callable[[Config], dict[str, Any]] = _as_they_are
    change_function_settings: Callable[[Config], dict[str, Any]] = _as_they_are
    forms: Mapping[str, Form] = field(default_factory=dict)
    published: Mapping[tuple[str, str, int, int, bool], Published] = field(default_factory=dict)
    extra_published: Mapping[tuple[str, int, str], Published] = field(default_factory=dict)
    quoted: Mapping[int, str] = field(default_factory=dict)
