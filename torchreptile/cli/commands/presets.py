"""``reptile presets``: list the presets with published results, and the shipped weights."""

from __future__ import annotations

from rich.table import Table

from torchreptile.cli.commands.console import Output
from torchreptile.core.config.presets import PRESETS
from torchreptile.experiments.reports.run_data import SPLITS
from torchreptile.training.evaluation.labels import MODES, label_of
from torchreptile.training.evaluation.published import FIGURE_ONLY, published
from torchreptile.training.weights import shipped_card, shipped_weights


def presets() -> int:
    """Print the presets and the shipped weights; return the exit code."""
    table = Table()
    for heading in ("preset", "published", "published, transductive"):
        table.add_column(heading, no_wrap=True)
    for entry in PRESETS.values():
        task, algorithm = entry.config.task, entry.config.method.algorithm
        cells = [
            published(algorithm, task.dataset, task.way, task.shots, transductive) for transductive in (False, True)
        ]
        shown = [FIGURE_ONLY, "-"] if task.regression else [str(cell or "-") for cell in cells]
        table.add_row(entry.name, *shown)
    console = Output()
    console.print(table)
    console.print("\nshipped weights:")
    for name in shipped_weights():
        card = shipped_card(name)
        steps, published_steps = card["outer_steps_done"], card["training"]["published_outer_steps"]
        lines = [f"  {name}, {steps:,}{f' of {published_steps:,}' if published_steps else ''} outer steps"]
        for line in card["results"]:
            where = f"{line['dataset']} {line['way']}-way {line['shots']}-shot, {SPLITS[line['split']]}"
            accuracies = (
                f"{line[mode]['accuracy']:.2f}% ± {line[mode]['ci95']:.2f} {label_of(mode).short}" for mode in MODES
            )
            lines.append(f"    {where}: {', '.join(accuracies)}")
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
    return 0
