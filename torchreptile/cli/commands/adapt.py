"""``reptile adapt``: learn classes from a few pictures, label other pictures, and draw the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from torchreptile.cli.commands.console import Output, show_lines
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import write_bytes, write_text
from torchreptile.experiments.reports.predictions_image import draw_predictions
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.inference.classifier_file import is_classifier
from torchreptile.inference.label_folder import Labelled, fit_folder, label_pictures
from torchreptile.models.custom import requested_network
from torchreptile.training.weights import CheckpointName, load_weights


@dataclass(frozen=True)
class AdaptFiles:
    """The files that ``reptile adapt`` writes; None for those not requested."""

    csv: Path | None
    picture: Path
    classifier: Path | None

    def check(self) -> None:
        """Refuse invalid file names before anything is computed.

        Raises:
            ConfigError: a suffix is wrong, two names are equal, a name is a folder, or its folder is missing.
        """
        for flag, path, suffix in (("picture", self.picture, ".png"), ("save", self.classifier, ".safetensors")):
            if path is not None and path.suffix != suffix:
                raise ConfigError(f"--{flag} is {path}; its name must end in {suffix}")
        written = [self.csv, self.picture, self.classifier, self.classifier and self.classifier.with_suffix(".json")]
        names = [path.resolve() for path in written if path is not None]
        if len(set(names)) < len(names):
            raise ConfigError("two of --csv, --picture and --save (which writes a .json too) name the same file")
        for flag, path in (("csv", self.csv), ("picture", self.picture), ("save", self.classifier)):
            if path is not None and path.is_dir():
                raise ConfigError(f"--{flag} is {path}, which is a folder; name a file")
            if path is not None and path.parent != Path("runs") and not path.parent.is_dir():
                raise ConfigError(f"--{flag} is {path}; there is no folder {path.parent}")


def adapt(
    source: Path,
    support: Path | None,
    query: Path,
    files: AdaptFiles,
    model: str,
    checkpoint: CheckpointName,
    as_json: bool,
    **settings: Any,
) -> int:
    """Adapt to the support set or load a classifier, label the queries, print and draw them; return the exit code."""
    files.check()
    network = requested_network(model)
    if is_classifier(source):
        _refuse_adapting_again(source, support, settings | {"checkpoint": checkpoint})
        classifier = FewShotClassifier.load(source, network=network, device=settings["device"])
    elif source.suffix == ".safetensors" and not source.exists():
        raise ConfigError(f"{source}: there is no such file")
    elif support is None:
        raise ConfigError(f"{source} has not learned your classes yet; name a folder of class folders with --support")
    else:
        classifier = FewShotClassifier(load_weights(source, checkpoint=checkpoint), network=network, **settings)
        fit_folder(classifier, support)
    labelled = label_pictures(classifier, query)
    fitted_from = {name: images / 255 for name, images in classifier.support_.items()}
    drawn = draw_predictions(
        fitted_from, labelled.images / 255, labelled.predicted, labelled.confidence, labelled.truth
    )
    if files.csv is not None:
        write_text(files.csv, labelled.to_csv())
    if files.classifier is not None:
        classifier.save(files.classifier)
    files.picture.parent.mkdir(exist_ok=True)
    write_bytes(files.picture, drawn)
    if as_json:
        print(labelled.to_json())
        return 0
    print_labelled(labelled, Output())
    for path in (files.csv, files.classifier, files.picture):
        if path is not None:
            show_lines(path)
    return 0


def _refuse_adapting_again(source: Path, support: Path | None, settings: dict[str, Any]) -> None:
    """Refuse flags that configure adaptation together with a classifier, which is already adapted.

    Raises:
        ConfigError: such flags are given; the message names them.
    """
    given = {"support": support is not None, "steps": settings["steps"] is not None}
    given |= {"transductive": settings["transductive"], "seed": settings["seed"] != 0}
    given |= {"unbalanced": not settings["balanced"], "reject": settings["reject"] is not None}
    given |= {"checkpoint": settings["checkpoint"] != "last"}
    if any(given.values()):
        flags = ", ".join(f"--{name}" for name, is_given in given.items() if is_given)
        raise ConfigError(f"{source} is a classifier that has already learned its classes; leave out {flags}")


def print_labelled(labelled: Labelled, console: Console) -> None:
    """Print a table with one line per picture, and the accuracy if true classes are known."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("file", overflow="fold")
    table.add_column("predicted", overflow="fold")
    table.add_column("confidence", justify="right")
    if labelled.truth is not None:
        table.add_column("")
    for number, file in enumerate(labelled.files):
        predicted, confidence = labelled.predicted[number], labelled.confidence[number]
        right = [] if labelled.truth is None else ["" if predicted == labelled.truth[number] else "wrong"]
        table.add_row(file.name, predicted, f"{100 * confidence:.1f}%", *right)
    console.print(table)
    if labelled.unknown_folders:
        names = ", ".join(labelled.unknown_folders)
        console.print(f"no accuracy: {names} is not the name of a class", highlight=False, soft_wrap=True, markup=False)
    if labelled.right is not None:
        of = len(labelled.files)
        console.print(f"{labelled.right:,} of {of:,} right ({100 * labelled.right / of:.1f}%)", highlight=False)
