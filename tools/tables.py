"""Render results/ into README.md, docs/results.md and the figures next to the results (`make tables`).

    python tools/tables.py            # write the files
    python tools/tables.py --check    # list outdated files, and exit with 1 if there are any

Every results/NAME.json is the result.json of a `reptile reproduce`. Cells without a measurement stay empty. A result
with other settings than this version's experiment, or with missing trainings, is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchreptile.core.config.algorithm_table import algorithm_row
from torchreptile.core.errors import RunError, TorchReptileError
from torchreptile.core.files import write_bytes, write_text
from torchreptile.experiments.reports.markdown_csv import table
from torchreptile.experiments.reports.reproduction_figures import draw_reproduced, is_drawn
from torchreptile.experiments.reports.reproduction_tables import body, shown, unfinished
from torchreptile.experiments.reports.run_data import SPLITS
from torchreptile.experiments.reproduce import EXPERIMENTS, Experiment, find_experiment
from torchreptile.experiments.reproduce.result import Reproduced, read_reproduced
from torchreptile.experiments.reproduce.table_rows import DATASETS, PUBLISHED, TITLES
from torchreptile.training.evaluation.labels import MODES, label_of

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "results"
BEGIN, END = "<!-- from results/ by `make tables` -->\n", "<!-- end -->\n"
PAPER = ("reptile", "fomaml")  # the rows that the Reptile paper adds to the tables


@dataclass(frozen=True)
class StoredResult:
    """A result and its file."""

    file: Path
    result: Reproduced

    @property
    def picture(self) -> Path:
        """The figure next to the file."""
        return self.file.with_suffix(".png")

    @property
    def experiment(self) -> Experiment:
        """The experiment that the result belongs to."""
        return EXPERIMENTS[self.result.name]


def stored_results(folder: Path) -> list[StoredResult]:
    """Read all results, in the order of the experiments, those with the full training budget first.

    Raises:
        TorchReptileError: a result cannot be read, is incomplete, or has other settings than its experiment.
    """
    found = [StoredResult(file, read_reproduced(file)) for file in sorted(folder.glob("*.json"))]
    for entry in found:
        if departure := entry.result.departure(find_experiment(entry.result.name)):
            raise RunError(f"{entry.file} has other settings ({departure})")
        if missing := entry.result.missing(entry.experiment):
            raise RunError(f"{entry.file} is {unfinished(missing)}")
    order = list(EXPERIMENTS)
    return sorted(found, key=lambda entry: (order.index(entry.result.name), -entry.result.share))


def cells_table(results: Sequence[StoredResult], variants: Iterable[str] | None) -> str:
    """Return a table with a row per published task of these variants (or of all): published and measured accuracies."""
    lines = dict.fromkeys(key[:4] for key in PUBLISHED if variants is None or key[0] in variants)
    rows = []
    for variant, dataset, way, shots in lines:
        name = f"{TITLES[variant]}, {DATASETS[dataset]} {way}-way {shots}-shot"
        both = [
            text
            for measure in MODES
            for text in (
                str(PUBLISHED.get((variant, dataset, way, shots, measure == "transductive"), "")),
                "<br>".join(_here(results, (variant, dataset, way, shots, measure))),
            )
        ]
        rows.append((name, *both))
    return table(("", *(head for mode in MODES for head in (f"{label_of(mode).name}, published", "here"))), rows)


def _here(results: Sequence[StoredResult], wanted: tuple[str, str, int, int, str]) -> list[str]:
    """Return the measurements of a cell, with notes where budget, split, episodes or seeds differ from the default."""
    variant, *task, shots, measure = wanted
    if measure == "inductive":
        wanted = (variant, *task, shots, algorithm_row(variant.partition(" ")[0]).quoted.get(shots, measure))
    found = []
    for entry in results:
        if entry.experiment.kind != "row":  # figures have other trainings than table rows
            continue
        for _, cell, spread in entry.result.spreads():
            if (cell.variant, cell.dataset, cell.way, cell.shots, cell.measure) == wanted:
                notes = [f"{100 * entry.result.share:g}% of the steps"] if entry.result.share < 1 else []
                notes += [f"{SPLITS[cell.split]} classes"] if cell.split != "test" else []
                notes += [f"{cell.episodes:,} episodes"] if cell.episodes != entry.experiment.episodes else []
                if spread.between is not None:
                    notes.append(f"{spread.seeds} seeds, sd between them {100 * spread.between:.2f}")
                found.append(shown(cell, spread) + (f" ({', '.join(notes)})" if notes else ""))
    return found


def readme(text: str, results: Sequence[StoredResult]) -> str:
    """Return README.md with an updated table of the Reptile paper's rows."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise TorchReptileError(f"README.md has no lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + "\n" + cells_table(results, PAPER) + "\n" + END + after


def page(results: Sequence[StoredResult]) -> str:
    """Return docs/results.md."""
    parts = [
        "# Results\n",
        "All reproduced experiments with their commands, generated from [results/](../results) by `make tables`. ± is "
        "the 95% confidence interval over the episodes of all seeds together; published margins are as printed in the "
        "papers. Published accuracies are on test classes, after the full training. [experiments.md](experiments.md) "
        "describes what else was tried.\n",
    ]
    for entry in results:
        share = "" if entry.result.share == 1 else f", {100 * entry.result.share:g}%"
        parts += [f"## {entry.experiment.name}{share}\n", f"{entry.experiment.what}. {entry.experiment.source}.\n"]
        parts.append(f"![{entry.experiment.what}](../results/{entry.picture.name})\n")
        parts.append(body(entry.result, entry.experiment))
    parts += [
        "## All published cells\n",
        "An empty cell was not published, or not run by `reptile reproduce`; smaller trainings of all algorithms are "
        "in [experiments.md](experiments.md).\n",
        cells_table(results, None),
    ]
    return "\n".join(parts)


def rendered(results: Sequence[StoredResult]) -> dict[Path, str]:
    """Return the content that both files should have."""
    start = REPOSITORY / "README.md"
    return {
        start: readme(start.read_text(encoding="utf-8"), results),
        REPOSITORY / "docs" / "results.md": page(results),
    }


def main(arguments: Sequence[str]) -> int:
    """Write or check the files; return the exit code."""
    if list(arguments) not in ([], ["--check"]):
        print("usage: python tools/tables.py [--check]", file=sys.stderr)
        return 2
    results = stored_results(RESULTS)
    wanted = rendered(results)
    stale = {path: text for path, text in wanted.items() if not path.is_file() or path.read_text("utf-8") != text}
    undrawn = [entry for entry in results if not is_drawn(entry.picture, entry.result, entry.experiment)]
    if not arguments:
        for path, text in stale.items():
            write_text(path, text)
        for entry in undrawn:
            write_bytes(entry.picture, draw_reproduced(entry.result, entry.experiment))
    state = "differs from results/; run `make tables`" if arguments else "written"
    for path in [*stale, *(entry.picture for entry in undrawn)]:
        print(f"{path.relative_to(REPOSITORY)}: {state}")
    return 1 if arguments and (stale or undrawn) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TorchReptileError as error:
        raise SystemExit(f"tools/tables.py: {error}") from error
