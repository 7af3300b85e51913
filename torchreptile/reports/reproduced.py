"""A reproduced experiment as tables, beside what was published."""

from __future__ import annotations

from collections.abc import Iterable

from torchreptile.environment import sittings
from torchreptile.progress import duration
from torchreptile.reports.recorded import SPLITS
from torchreptile.reports.tables import table
from torchreptile.reproduce.experiment import Experiment
from torchreptile.reproduce.findings import findings
from torchreptile.reproduce.reproduced import Cell, Reproduced, Spread, hardware
from torchreptile.results import ERRORS, Accuracy, SquaredError

MODES = {"transductive": "transductive", "non_transductive": "not transductive"}


def to_markdown(reproduced: Reproduced, experiment: Experiment) -> str:
    """The measurements beside the published ones, what was found, and how it was done."""
    head = [f"# {experiment.name}\n", f"{experiment.what}. {experiment.source}.\n"]
    return "\n".join([*head, table(*measured_rows(reproduced, experiment)), summary(reproduced, experiment)])


def summary(reproduced: Reproduced, experiment: Experiment) -> str:
    """What was found, as a table, and how it was done, as a list."""
    rows = [
        (finding.what, "published" if finding.published else "seen here", finding.verdict, finding.numbers)
        for finding in findings(reproduced, experiment.kind)
    ]
    seeds = len({trained.seed for trained in reproduced.trainings})
    between = "" if seeds > 1 else "; one training each, so what another seed would change is not in them"
    parts = [table(("", "", "here", f"differences ± 95%{between}"), rows)] if rows else []
    return "\n".join([*parts, how(reproduced)])


def how(reproduced: Reproduced) -> str:
    """The commands, the share of the published training, time and hardware, as a list."""
    trainings = reproduced.trainings
    seeds = sorted({trained.seed for trained in trainings})
    steps = sorted({trained.outer_steps for trained in trainings if trained.config.method.algorithm != "scratch"})
    share = share_in_words(reproduced)
    lines = [
        *(f"`{command}`" for command in reproduced.commands),
        f"outer steps: {' or '.join(f'{count:,}' for count in steps)}" + (f", {share}" if share else ""),
        f"seeds: {', '.join(map(str, seeds))}; {len(trainings)} training{'s' * (len(trainings) > 1)}, "
        f"{duration(sum(trained.seconds for trained in trainings))} of training in all",
        *_each("trained on ", (hardware(place) for trained in trainings for place in sittings(trained.environment))),
        *_each("measured on ", (cell.hardware for trained in trainings for cell in trained.cells)),
        *([reproduced.note] if reproduced.note else []),
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _each(what: str, names: Iterable[str]) -> list[str]:
    return [what + name for name in dict.fromkeys(names)]


def share_in_words(reproduced: Reproduced) -> str:
    """Of the published outer steps, for people; empty for all of them."""
    if reproduced.share == 1:
        return ""
    outers = [trained.config.outer for trained in reproduced.trainings]
    annealed = all(outer.outer_step_size_final < outer.outer_step_size for outer in outers if outer.outer_steps > 1)
    return f"{100 * reproduced.share:g}% of the published outer steps" + (", annealed to the end" if annealed else "")


def measured_rows(reproduced: Reproduced, experiment: Experiment) -> tuple[list[str], list[tuple[str, ...]]]:
    """The head of a table of every cell over its seeds, beside what was published for it, and its lines."""
    spreads = list(reproduced.spreads())
    several = any(spread.seeds > 1 for _, _, spread in spreads)
    is_row = experiment.kind == "row"  # a figure has other trainings than the table row of the same cells
    rows: list[tuple[str, ...]] = []
    for trained, cell, spread in spreads:
        between = [_alone(cell, spread.between)] if several else []
        counts = (f"{cell.episodes:,}", str(spread.seeds))
        beside = _beside(cell, spread) if is_row else ()
        rows.append((trained.label, place(cell), shown(cell, spread), *between, *beside, *counts))
    head = ["", "measured", "here, 95% CI", *(["sd between seeds"] if several else [])]
    head += ["published (test classes)", "difference"] if is_row else []
    return [*head, "episodes", "seeds"], rows


def _beside(cell: Cell, spread: Spread) -> tuple[str, str]:
    """What was published for it, and the difference, which says nothing of other classes."""
    published = cell.published
    if published is None:
        return "", ""
    return str(published), f"{100 * spread.mean - published.accuracy:+.2f}" if cell.split == "test" else ""


def place(cell: Cell) -> str:
    """Which cell, for people."""
    if cell.measure in ERRORS:
        return f"mean squared error {ERRORS[cell.measure]}"
    what = f"{cell.way}-way {cell.shots}-shot" + (", fine-tuned" if cell.finetune_steps else "")
    return f"{what}, {SPLITS[cell.split]} classes, {MODES.get(cell.measure, cell.measure)}"


def shown(cell: Cell, spread: Spread) -> str:
    """Mean and interval over episodes: percent, or an error."""
    if cell.measure in ERRORS:
        return str(SquaredError(spread.mean, spread.ci95, cell.episodes))
    return str(Accuracy(spread.mean, spread.ci95, cell.episodes))


def _alone(cell: Cell, value: float | None) -> str:
    """A value without interval."""
    if value is None:
        return "-"
    return f"{value:.2g}" if cell.measure in ERRORS else f"{100 * value:.2f}"
