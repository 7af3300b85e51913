"""``reptile adapt``: learn classes from a few pictures, label others, show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torchreptile.cli.commands.console import Output
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import write_bytes, write_text
from torchreptile.experiments.reports.predictions_image import draw_predictions
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.inference.classifier_file import is_classifier
from torchreptile.inference.label_folder import Labelled, fit_folder, label_pictures
from torchreptile.models.custom import own_network
from torchreptile.training.weights import Kept, load_weights


@dataclass(frozen=True)
class AdaptFiles:
    """What ``reptile adapt`` writes: None for what is not wanted."""

    csv: Path | None
    picture: Path
    classifier: Path | None

    def check(self) -> None:
        """Refuse names that cannot be written to, before anything is computed.

        Raises:
            ConfigError: another suffix than .png or .safetensors, or a folder that is not there.
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
    checkpoint: Kept,
    as_json: bool,
    **settings: Any,
) -> int:
    """Fit to the support set, or load what was fitted; label; print a table or JSON; draw."""
    files.check()
    network = own_network(model)
    if is_classifier(source):
        _refuse_adapting_again(source, support, settings | {"checkpoint": checkpoint})
        classifier = FewShotClassifier.load(source, network=network, device=settings["device"])
    elif source.suffix == ".safetensors" and not source.exists():
        raise ConfigError(f"{source}: there is no such file")
    elif support is None:
        raise ConfigError(f"{source} has not learned your classes yet; name a folder of class folders by --support")
    else:
        classifier = FewShotClassifier(load_weights(source, checkpoint=checkpoint), network=network, **settings)
        fit_folder(classifier, support)
    labelled = label_pictures(classifier, query)
    its = {name: images / 255 for name, images in classifier.support_.items()}
    drawn = draw_predictions(its, labelled.images / 255, labelled.predicted, labelled.confidence, labelled.truth)
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
            print(path)
    return 0


def _refuse_adapting_again(source: Path, support: Path | None, settings: dict[str, Any]) -> None:
    """A classifier has learned what it labels: nothing that says how to learn may come with it.

    Raises:
        ConfigError: naming what does.
    """
    given = {"support": support is not None, "steps": settings["steps"] is not None}
    given |= {"transductive": settings["transductive"], "seed": settings["seed"] != 0}
    given |= {"checkpoint": settings["checkpoint"] != "last"}
    if any(given.values()):
        flags = ", ".join(f"--{name}" for name, is_given in given.items() if is_given)
        raise ConfigError(f"{source} is a classifier that has learned its classes already; leave out {flags}")


def print_labelled(labelled: Labelled, console: Console) -> None:
    """One line per picture."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("file", overflow="fold")
    table.add_column("predicted", overflow="fold")
    table.add_column("confidence", justify="right")
    if labelled.truth is not None:
        table.add_column("")
    for number, file in enumerate(labelled.files):
        said, sure = labelled.predicted[number], labelled.confidence[number]
        right = [] if labelled.truth is None else ["" if said == labelled.truth[number] else "wrong"]
        table.add_row(Text(file.name), Text(said), f"{100 * sure:.1f}%", *right)
    console.print(table)
    if labelled.strangers:
        names = ", ".join(labelled.strangers)
        console.print(f"no accuracy: {names} is not the name of a class", highlight=False, soft_wrap=True, markup=False)
    if labelled.right is not None:
        of = len(labelled.files)
        console.print(f"{labelled.right:,} of {of:,} right ({100 * labelled.right / of:.1f}%)", highlight=False)
