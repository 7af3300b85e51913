"""Tables of reproduced experiments, with published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchreptile.core.environment import computed_by, sessions
from torchreptile.experiments.reports.markdown_csv import code, plain, table
from torchreptile.experiments.reports.run_data import SPLITS
from torchreptile.experiments.reproduce.experiment import Experiment
from torchreptile.experiments.reproduce.findings import COMPARED, findings, sweep
from torchreptile.experiments.reproduce.minibatch_overlap import NAMES, SWEEPS, where_held
from torchreptile.experiments.reproduce.result import Cell, Reproduced, Spread
from torchreptile.experiments.reproduce.seed_statistics import chosen
from torchreptile.training.evaluation.labels import ERRORS, label_of
from torchreptile.training.evaluation.results import Accuracy, SquaredError
from torchreptile.training.progress_bars import duration


@dataclass(frozen=True)
class Measured:
    """A table of measurements.

    Attributes:
        what: description of the table; empty if the experiment has only one.
        head: headings of the columns.
        rows: cells of each row.
    """

    what: str
    head: list[str]
    rows: list[tuple[str, ...]]


def to_markdown(reproduced: Reproduced, experiment: Experiment) -> str:
    """Return the Markdown of an experiment: measurements with published numbers, findings and conditions."""
    return "\n".join(
        [f"# {experiment.name}\n", f"{experiment.what}. {experiment.source}.\n", body(reproduced, experiment)]
    )


def body(reproduced: Reproduced, experiment: Experiment) -> str:
    """Return the Markdown tables of measurements and findings, and the list of conditions."""
    parts: list[str] = []
    for measured in measurements(reproduced, experiment):
        parts += [f"{measured.what}:\n"] if measured.what else []
        parts.append(table(measured.head, measured.rows))
    rows = [
        (finding.what, "published" if finding.published else "observed here", finding.verdict, finding.numbers)
        for finding in findings(reproduced, experiment)
    ]
    numbers = "; ".join(filter(None, ["numbers, with 95% confidence intervals", caution(reproduced)]))
    parts += [table(("", "", "here", numbers), rows)] if rows else []
    return "\n".join([*parts, how(reproduced, experiment)])


def caution(reproduced: Reproduced) -> str:
    """Return what the intervals of the findings do not include; empty if there are several seeds."""
    return "" if len(reproduced.seeds) > 1 else "a single seed, so they do not include variation between trainings"


def how(reproduced: Reproduced, experiment: Experiment) -> str:
    """Return a Markdown list of commands, missing trainings, training budget, time and hardware."""
    trainings = reproduced.trainings
    missing = reproduced.missing(experiment)
    measuring = {(trained.name, cell.conditions): cell.seconds for trained in trainings for cell in trained.cells}
    steps = sorted({trained.outer_steps for trained in trainings if trained.config.method.algorithm != "scratch"})
    share = share_in_words(reproduced)
    lines = [
        *(code(command) for command in reproduced.commands),
        f"outer steps: {' or '.join(f'{count:,}' for count in steps)}" + (f", {share}" if share else ""),
        f"seeds: {', '.join(map(str, reproduced.seeds))}; {len(trainings)} training{'s' * (len(trainings) > 1)}, "
        f"{duration(sum(trained.seconds for trained in trainings))} of training and "
        f"{duration(sum(measuring.values()))} of evaluation in total",
        *([f"**{unfinished(missing)}**"] if missing else []),
        *_each(
            "trained on ",
            (plain(computed_by(place)) for trained in trainings for place in sessions(trained.environment)),
        ),
        *_each("evaluated on ", (plain(cell.hardware) for trained in trainings for cell in trained.cells)),
        *([reproduced.note] if reproduced.note else []),
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def unfinished(missing: Sequence[str]) -> str:
    """Report missing trainings.

    Example:
        >>> unfinished(["joint-seed0"])
        'incomplete: 1 training missing (joint-seed0)'
    """
    return (
        f"incomplete: {len(missing)} training{'s' * (len(missing) > 1)} missing ({', '.join(missing[:3])}"
        f"{', ...' * (len(missing) > 3)})"
    )


def _each(what: str, names: Iterable[str]) -> list[str]:
    """Return ``what`` followed by each different name."""
    return [what + name for name in dict.fromkeys(names)]


def share_in_words(reproduced: Reproduced) -> str:
    """Describe the share of the published outer steps; empty for all of them."""
    if reproduced.share == 1:
        return ""
    outers = [trained.config.outer for trained in reproduced.trainings]
    annealed = all(outer.outer_step_size_final < outer.outer_step_size for outer in outers if outer.outer_steps > 1)
    return f"{100 * reproduced.share:g}% of the published outer steps" + (", annealed to the end" if annealed else "")


def measurements(reproduced: Reproduced, experiment: Experiment) -> list[Measured]:
    """Return the tables of measurements over seeds: one per sweep, or a single one."""
    if experiment.kind == "overlap":
        return [_swept(reproduced, setting) for setting in SWEEPS]
    return [_one_by_one(reproduced, experiment)]


def _swept(reproduced: Reproduced, setting: str) -> Measured:
    """Return the table of a sweep: a row per value of the setting, a column per line of the figure."""
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
    """Describe how the points of the sweeps were evaluated."""
    episodes = dict.fromkeys(f"{cell.episodes:,}" for _, cell, _ in chosen(reproduced, COMPARED))
    return f"{SPLITS[reproduced.split]} classes, {label_of(COMPARED).long}, {' or '.join(episodes)} episodes"


def _one_by_one(reproduced: Reproduced, experiment: Experiment) -> Measured:
    """Return a table with a row per cell and its published number."""
    spreads = list(reproduced.spreads())
    several = any(spread.seeds > 1 for _, _, spread in spreads)
    is_row = experiment.kind == "row"  # a figure has other trainings than the table row of the same cells
    rows: list[tuple[str, ...]] = []
    for trained, cell, spread in spreads:
        between = [_alone(cell, spread.between)] if several else []
        counts = (f"{cell.episodes:,}", str(spread.seeds))
        published = _published(cell, spread) if is_row else ()
        rows.append((trained.label, place(cell), shown(cell, spread), *between, *published, *counts))
    head = ["", "measured", "here, 95% CI", *(["sd between seeds"] if several else [])]
    head += ["published (test classes)", "difference"] if is_row else []
    return Measured("", [*head, "episodes", "seeds"], rows)


def _published(cell: Cell, spread: Spread) -> tuple[str, str]:
    """Return the published number and the difference to it, which is empty unless test classes were evaluated."""
    published = cell.published
    if published is None:
        return "", ""
    return str(published), f"{100 * spread.mean - published.accuracy:+.2f}" if cell.split == "test" else ""


def place(cell: Cell) -> str:
    """Describe what a cell measures."""
    if cell.measure in ERRORS:
        return f"mean squared error {label_of(cell.measure).name}"
    what = f"{cell.way}-way {cell.shots}-shot" + (", fine-tuned" if cell.finetune_steps else "")
    return f"{what}, {SPLITS[cell.split]} classes, {label_of(cell.measure).name}"


def shown(cell: Cell, spread: Spread) -> str:
    """Format mean and interval over episodes, accuracies in percent."""
    if cell.measure in ERRORS:
        return str(SquaredError(spread.mean, spread.ci95, spread.episodes))
    return str(Accuracy(spread.mean, spread.ci95, spread.episodes))


def _alone(cell: Cell, value: float | None) -> str:
    """Format a value without an interval."""
    if value is None:
        return "-"
    return f"{value:.2g}" if cell.measure in ERRORS else f"{100 * value:.2f}"
