"""A reproduced experiment as tables, beside what was published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchreptile.core.environment import sessions
from torchreptile.experiments.reports.markdown_csv import table
from torchreptile.experiments.reports.run_data import SPLITS
from torchreptile.experiments.reproduce.experiment import Experiment
from torchreptile.experiments.reproduce.findings import COMPARED, findings, sweep
from torchreptile.experiments.reproduce.minibatch_overlap import NAMES, SWEEPS, where_held
from torchreptile.experiments.reproduce.result import Cell, Reproduced, Spread, hardware
from torchreptile.experiments.reproduce.seed_statistics import chosen
from torchreptile.training.evaluation.results import ERRORS, Accuracy, SquaredError
from torchreptile.training.progress_bars import duration

MODES = {"transductive": "transductive", "inductive": "inductive"}


@dataclass(frozen=True)
class Measured:
    """A table of what was measured.

    Attributes:
        what: it holds, where there are several; empty for the only one.
        head: over its columns.
        rows: of as many cells each.
    """

    what: str
    head: list[str]
    rows: list[tuple[str, ...]]


def to_markdown(reproduced: Reproduced, experiment: Experiment) -> str:
    """The measurements beside the published ones, what was found, and how it was done."""
    return "\n".join(
        [f"# {experiment.name}\n", f"{experiment.what}. {experiment.source}.\n", body(reproduced, experiment)]
    )


def body(reproduced: Reproduced, experiment: Experiment) -> str:
    """The measurements and what was found, as tables, and how it was done, as a list."""
    parts: list[str] = []
    for measured in measurements(reproduced, experiment):
        parts += [f"{measured.what}:\n"] if measured.what else []
        parts.append(table(measured.head, measured.rows))
    rows = [
        (finding.what, "published" if finding.published else "seen here", finding.verdict, finding.numbers)
        for finding in findings(reproduced, experiment)
    ]
    numbers = "; ".join(filter(None, ["numbers, with 95% confidence intervals", caution(reproduced)]))
    parts += [table(("", "", "here", numbers), rows)] if rows else []
    return "\n".join([*parts, how(reproduced, experiment)])


def caution(reproduced: Reproduced) -> str:
    """What the intervals of the findings leave out; empty where nothing."""
    return "" if len(reproduced.seeds) > 1 else "one training each, so what another seed would change is not in it"


def how(reproduced: Reproduced, experiment: Experiment) -> str:
    """The commands, what is missing, the share of the published training, time and hardware, as a list."""
    trainings = reproduced.trainings
    missing = reproduced.missing(experiment)
    measuring = {(trained.name, cell.conditions): cell.seconds for trained in trainings for cell in trained.cells}
    steps = sorted({trained.outer_steps for trained in trainings if trained.config.method.algorithm != "scratch"})
    share = share_in_words(reproduced)
    lines = [
        *(f"`{command}`" for command in reproduced.commands),
        f"outer steps: {' or '.join(f'{count:,}' for count in steps)}" + (f", {share}" if share else ""),
        f"seeds: {', '.join(map(str, reproduced.seeds))}; {len(trainings)} training{'s' * (len(trainings) > 1)}, "
        f"{duration(sum(trained.seconds for trained in trainings))} of training in all, and "
        f"{duration(sum(measuring.values()))} of measuring",
        *([f"**{unfinished(missing)}**"] if missing else []),
        *_each("trained on ", (hardware(place) for trained in trainings for place in sessions(trained.environment))),
        *_each("measured on ", (cell.hardware for trained in trainings for cell in trained.cells)),
        *([reproduced.note] if reproduced.note else []),
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def unfinished(missing: Sequence[str]) -> str:
    """That trainings are missing, for people."""
    return (
        f"not all of it: {len(missing)} training{'s' * (len(missing) > 1)} missing ({', '.join(missing[:3])}"
        f"{', ...' * (len(missing) > 3)})"
    )


def _each(what: str, names: Iterable[str]) -> list[str]:
    return [what + name for name in dict.fromkeys(names)]


def share_in_words(reproduced: Reproduced) -> str:
    """Of the published outer steps, for people; empty for all of them."""
    if reproduced.share == 1:
        return ""
    outers = [trained.config.outer for trained in reproduced.trainings]
    annealed = all(outer.outer_step_size_final < outer.outer_step_size for outer in outers if outer.outer_steps > 1)
    return f"{100 * reproduced.share:g}% of the published outer steps" + (", annealed to the end" if annealed else "")


def measurements(reproduced: Reproduced, experiment: Experiment) -> list[Measured]:
    """Every measurement over its seeds: by sweep where settings were swept, else one after another."""
    if experiment.kind == "overlap":
        return [_swept(reproduced, setting) for setting in SWEEPS]
    return [_one_by_one(reproduced, experiment)]


def _swept(reproduced: Reproduced, setting: str) -> Measured:
    """A row for every value of the setting, a column for every line of the figure."""
    lines = sweep(reproduced, setting)
    shown = {
        (line, value): str(Accuracy(spread.mean, spread.ci95, spread.episodes))
        for line, points in lines.items()
        for value, spread in points.items()
    }
    values = sorted({value for _, value in shown})
    rows = [(f"{value:g}", *(shown.get((line, value), "") for line in lines)) for value in values]
    what = f"Sweep of {NAMES[setting]} at {where_held(setting)}; {sweep_measured(reproduced)}"
    return Measured(what, [NAMES[setting], *lines], rows)


def sweep_measured(reproduced: Reproduced) -> str:
    """How the points of the sweeps were measured."""
    episodes = dict.fromkeys(f"{cell.episodes:,}" for _, cell, _ in chosen(reproduced, COMPARED))
    return f"{SPLITS[reproduced.split]} classes, each query alone, {' or '.join(episodes)} episodes"


def _one_by_one(reproduced: Reproduced, experiment: Experiment) -> Measured:
    """A row for every cell, beside what was published for it."""
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
    return Measured("", [*head, "episodes", "seeds"], rows)


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
        return str(SquaredError(spread.mean, spread.ci95, spread.episodes))
    return str(Accuracy(spread.mean, spread.ci95, spread.episodes))


def _alone(cell: Cell, value: float | None) -> str:
    """A value without interval."""
    if value is None:
        return "-"
    return f"{value:.2g}" if cell.measure in ERRORS else f"{100 * value:.2f}"
