"""What the commands print: each function does one command with the library and returns an exit code."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torchreptile.adapting import Labelled, fit_folder, label_pictures
from torchreptile.algorithms import build_algorithm
from torchreptile.classifier import FewShotClassifier
from torchreptile.classifier_file import is_classifier
from torchreptile.config import Config
from torchreptile.data import load_splits
from torchreptile.data.duplicates import find_leaks
from torchreptile.data.splits import SPLITS, load_functions
from torchreptile.data.tables import Tables
from torchreptile.device import choose_device
from torchreptile.errors import ConfigError
from torchreptile.evaluation import Evaluation
from torchreptile.evaluation import evaluate as measure
from torchreptile.files import replacing, write_text
from torchreptile.learned import Kept, load_learned, shipped_weights
from torchreptile.models import Network
from torchreptile.models.own import load_network
from torchreptile.presets import PRESETS
from torchreptile.progress import EpisodeBar, LiveLine
from torchreptile.published import FIGURE_ONLY, published
from torchreptile.results import ERRORS, MODES, SquaredError
from torchreptile.showing import ready
from torchreptile.terminal import FILE_WIDTH, STOPPED, Output
from torchreptile.training import Run
from torchreptile.training import resume as resume_run
from torchreptile.training import train as train_run
from torchreptile.workers import is_first

if TYPE_CHECKING:
    from torchreptile.bench import Bench
    from torchreptile.comparing import Comparison, Row
    from torchreptile.data.splits import Split


def train(config: Config, out: Path, tensorboard: bool, model: str) -> int:
    """Meta-train with a live line; own images are decoded before, with a progress bar."""
    network = _network(model)
    if config.task.data and is_first():
        ready(config.task)
    return _exit_code(train_run(config, out, LiveLine(Console(stderr=True)), tensorboard, network))


def resume(out: Path, tensorboard: bool, model: str) -> int:
    """Go on with a run."""
    return _exit_code(resume_run(out, LiveLine(Console(stderr=True)), tensorboard, _network(model)))


def _network(model: str) -> Network | None:
    """The network of one's own that was named, if any."""
    return load_network(model) if model else None


def _exit_code(run: Run) -> int:
    return STOPPED if run.interrupted else 0


def describe(config: Config, out: Path, model: str) -> int:
    """Print what a training would do."""
    if config.task.regression:
        return _describe_functions(config, out, model)
    splits = load_splits(config.task)
    if (network := _network(model)) is not None:
        algorithm = build_algorithm(
            config,
            splits.train.image_shape,
            choose_device(config.run.device),
            network=network,
            classes=len(splits.train),
        )
        print(f"model: {model}, {sum(math.prod(s) for s in algorithm.shapes.values()):,} parameters")
        print(f"execution {algorithm.execution.name}: {algorithm.execution.reason}")
    val = f"{len(splits.val):,} validation classes" if splits.val else "no validation classes"
    test = f"{len(splits.test):,} test classes" if splits.has("test") else "no test classes"
    print(config.to_json())
    print(f"data: {len(splits.train):,} training classes, {val}, {test}")
    print(f"leaks: {find_leaks(splits).message(config.task.exclude_duplicates) or 'no picture is in two splits'}")
    return _describe_work(config, out)


def _describe_functions(config: Config, out: Path, model: str) -> int:
    """The same where tasks are functions; there are no pictures that could be in two splits."""
    splits = load_functions(config.task)
    algorithm = build_algorithm(
        config,
        splits.train.image_shape,
        choose_device(config.run.device),
        network=_network(model),
        targets=splits.train.targets,
    )
    stores = {part: splits.get(part) for part in SPLITS if splits.has(part)}
    parts = [f"{part} {len(store)}" for part, store in stores.items() if isinstance(store, Tables)]
    print(config.to_json())
    print(f"data: {splits.train.image_shape[0]} inputs, {splits.train.targets} targets; tasks: ", end="")
    print(", ".join(parts) or "drawn anew every time")
    print(f"network: {sum(math.prod(s) for s in algorithm.shapes.values()):,} parameters")
    print(f"execution {algorithm.execution.name}: {algorithm.execution.reason}")
    return _describe_work(config, out)


def _describe_work(config: Config, out: Path) -> int:
    outer, inner, task = config.outer, config.inner, config.task
    tasks = f"{outer.outer_steps:,} outer steps x {outer.meta_batch} tasks"
    if config.method.takes_inner_steps:
        print(
            f"work: {tasks} x {inner.inner_steps} inner steps = "
            f"{outer.outer_steps * outer.meta_batch * inner.inner_steps:,} task-steps of "
            f"{inner.inner_batch or task.way * task.images_per_class} {'points' if task.regression else 'images'}"
        )
    else:
        images = task.training_way * (task.images_per_class + task.train_queries)
        print(f"work: {tasks} of {images} images")
    print(f"would write {out}")
    return 0


def evaluate(source: Path, as_json: bool, model: str, **settings: Any) -> int:
    """Measure, and print a table or JSON."""
    with EpisodeBar(Console(stderr=True, quiet=not is_first())) as bar:
        evaluation = measure(source, on_progress=bar.update, network=_network(model), **settings)
    if not is_first():
        return 0
    if as_json:
        print(evaluation.to_json())
    else:
        print_evaluation(evaluation, Output())
    return 0


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """A table of both accuracies, or of errors before and after adaptation, beside the published ones."""
    config, task, result = evaluation.config, evaluation.config.task, evaluation.result
    own = f" (the very {task.members} these weights were trained on: no test result)"
    console.print(
        f"{evaluation.source}: {task.kind}, {evaluation.split} {task.members}"
        f"{own if evaluation.on_training_classes else ''} of {task.title} "
        f"(split scheme {task.split_scheme}), weights trained on {evaluation.trained_on}, "
        f"{config.method.algorithm}, {config.evaluation.eval_episodes:,} episodes, {config.adaptation}, "
        f"seed {evaluation.seed}, after {evaluation.step:,} outer steps",
        highlight=False,
        soft_wrap=True,
    )
    table = Table()
    table.add_column("measured" if task.regression else "mode")
    table.add_column(f"{result.measure}, 95% CI", justify="right")
    table.add_column("published", justify="right")
    for name, its in result.rows().items():
        shown = ERRORS.get(name, name.replace("_", "-") if name in MODES else name)
        table.add_row(shown, str(its or "does not apply"), evaluation.beside(name))
    console.print(table)


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
    from torchreptile.reports.predictions import draw_predictions

    files.check()
    network = _network(model)
    if is_classifier(source):
        _refuse_adapting_again(source, support, settings | {"checkpoint": checkpoint})
        classifier = FewShotClassifier.load(source, network=network, device=settings["device"])
    elif source.suffix == ".safetensors" and not source.exists():
        raise ConfigError(f"{source}: there is no such file")
    elif support is None:
        raise ConfigError(f"{source} has not learned your classes yet; name a folder of class folders by --support")
    else:
        classifier = FewShotClassifier(load_learned(source, checkpoint=checkpoint), network=network, **settings)
        fit_folder(classifier, support)
    labelled = label_pictures(classifier, query)
    its = {name: images / 255 for name, images in classifier.support_.items()}
    drawn = draw_predictions(its, labelled.images / 255, labelled.predicted, labelled.confidence, labelled.truth)
    if files.csv is not None:
        write_text(files.csv, labelled.to_csv())
    if files.classifier is not None:
        classifier.save(files.classifier)
    files.picture.parent.mkdir(exist_ok=True)
    with replacing(files.picture) as temporary:
        temporary.write_bytes(drawn)
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


def export(classifier: Path, to: Path, model: str) -> int:
    """Write the program, and say what it takes."""
    notes = FewShotClassifier.load(classifier, network=_network(model)).export(to)
    many, number = ("any number of images", "N") if notes.any_number else ("one image", "1")
    channels, height, width = notes.image_shape
    print(
        f"takes {many} per call, ({number}, {channels}, {height}, {width}) floats from 0 (black) to 1 (white); "
        f"gives probabilities ({number}, {len(notes.classes)}) of {', '.join(notes.classes)}"
    )
    print(to)
    return 0


def compare(
    preset: str,
    algorithms: Sequence[str],
    seeds: int,
    out: Path,
    split: Split,
    episodes: int,
    changes: dict[str, Any],
    as_json: bool,
) -> int:
    """Train and measure what is missing, print a table, and draw it."""
    from torchreptile import comparing
    from torchreptile.reports.comparison import draw_comparison

    comparison = comparing.compare(preset, algorithms, seeds, out, split=split, episodes=episodes, **changes)
    if comparison is None:
        print("stopped; the same command goes on", file=sys.stderr)
        return STOPPED
    picture = out / "comparison.png"
    with replacing(picture) as temporary:
        temporary.write_bytes(draw_comparison(comparison))
    if as_json:
        print(comparison.to_json())
        return 0
    terminal = Output()
    print_comparison(comparison, terminal if terminal.is_terminal else Output(width=FILE_WIDTH))
    print(f"{out / 'comparison.json'}\n{picture}")
    return 0


def print_comparison(comparison: Comparison, console: Console) -> None:
    """One line per algorithm."""
    first = comparison.trained[0].evaluation
    task, outer = first.config.task, first.config.outer
    budget = f"{outer.max_minutes:g} minutes each" if outer.max_minutes else "as many outer steps as published"
    console.print(
        f"{task.kind} on {first.split} {task.members} of {task.title} "
        f"(split scheme {task.split_scheme}), {budget}, {first.config.evaluation.eval_episodes:,} episodes per seed, "
        f"{comparison.environment['gpu'] or comparison.environment['processor']}, "
        f"{comparison.environment['threads']} threads",
        highlight=False,
        soft_wrap=True,
    )
    rows = comparison.rows()
    several = any(row.seeds > 1 for row in rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("algorithm", no_wrap=True)
    measures, headings = (MODES, ("transductive", "not"))
    if task.regression:
        measures, headings = ("mse", "mse_before"), ("mse", "before")
    for heading in (*headings, *(["sd"] if several else []), "steps", "min", "params", "ms/task", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.algorithm,
            *(_shown(row, measure) for measure in measures),
            *(["/".join(_spread(row, measure) for measure in measures)] if several else []),
            f"{row.steps:,.0f}" if row.parameters else "-",
            f"{row.seconds / 60:.1f}",
            f"{row.parameters:,}" if row.parameters else "-",
            f"{row.adapt_ms:.1f}",
            f"{row.peak_mib:,.0f}",
        )
    console.print(table)
    seeds = f"; sd: between {rows[0].seeds} seeds, both ways" if several else ""
    what, end = "accuracy in percent", "the labels of its queries"
    if task.regression:
        what, end = "mean squared error after and before adaptation", "its predictions"
    console.print(
        f"{what} with its 95% CI over episodes{seeds}; ms/task: one task alone, from its support set to "
        f"{end}; MiB: the training's process at its largest; -: does not apply.",
        soft_wrap=True,
    )
    for row in rows:
        if row.further:
            others = ", ".join(f"{name} {_shown(row, name)}" for name in row.further)
            console.print(f"{row.algorithm}: {others}", highlight=False, soft_wrap=True)


def _shown(row: Row, measure: str) -> str:
    """With its interval, in percent if it is an accuracy, or ``-`` where it does not apply."""
    if measure not in row.accuracy:
        return "-"
    mean, ci95 = row.accuracy[measure], row.ci95[measure]
    return str(SquaredError(mean, ci95, 0)) if measure in ERRORS else f"{100 * mean:.2f} ± {100 * ci95:.2f}"


def _spread(row: Row, measure: str) -> str:
    """Between seeds, in percent points if it is an accuracy."""
    if measure not in row.between:
        return "-"
    spread = row.between[measure] or 0
    return f"{spread:.2g}" if measure in ERRORS else f"{100 * spread:.2f}"


def report(runs: Sequence[Path], out: Path | None, model: str) -> int:
    """Draw, and name the files written."""
    from torchreptile.reports import report as report_one  # brings matplotlib, which the others do without
    from torchreptile.reports import report_beside

    if len(runs) == 1:
        written = report_one(runs[0], _network(model), out)
    else:
        written = report_beside(runs, out or Path("runs") / "report")
    for path in written:
        print(path)
    return 0


def bench(
    work: Config,
    network: str,
    executions: Sequence[str],
    precisions: Sequence[str],
    rounds: int,
    memory: bool,
    device: str,
    out: Path,
) -> int:
    """Measure, print a table, write JSON and a picture."""
    from torchreptile import bench as benching
    from torchreptile import workloads
    from torchreptile.reports.speed import draw_bench

    unknown = sorted(set(executions) - {workloads.NAIVE, *benching.EXECUTIONS})
    if unknown:
        known = ", ".join([workloads.NAIVE, *benching.EXECUTIONS])
        raise ConfigError(f"unknown execution {', '.join(unknown)}; there are {known}")
    where = choose_device(device)
    graphs = (False, True) if where.type == "cuda" else (False,)
    candidates = [workloads.Candidate(workloads.NAIVE)] if workloads.NAIVE in executions else []
    candidates += [
        workloads.Candidate(execution, precision, graph)
        for execution in executions
        for precision in precisions
        for graph in graphs
        if execution != workloads.NAIVE
    ]
    with Console(stderr=True).status("benchmarking") as status:
        result = benching.bench(
            work, benching.SHAPES[network], candidates, where, rounds, memory, lambda what: status.update(what)
        )
    print_bench(result, Output())
    picture, numbers = out / f"{network}.png", out / f"{network}.json"
    out.mkdir(parents=True, exist_ok=True)
    write_text(numbers, result.to_json() + "\n")
    with replacing(picture) as temporary:
        temporary.write_bytes(draw_bench(result))
    print(f"{numbers}\n{picture}")
    return 0


def print_bench(result: Bench, console: Console) -> None:
    """A table of all timings, fastest first."""
    outer, inner, env = result.config.outer, result.config.inner, result.environment
    console.print(
        f"{outer.meta_batch} tasks x {inner.inner_steps} inner steps of {inner.inner_batch} images "
        f"{result.image_shape}, {result.rounds} rounds, {env['gpu'] or env['processor']}, {env['threads']} threads, "
        f"torch {env['torch']}; matrix products reach {result.peak_gflops:,.0f} GFLOP/s in fp32",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("execution", no_wrap=True)
    for heading in ("ms/step", "ms/task", "images/s", "of peak", "vs naive", "outside", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for timing in result.timings:
        table.add_row(
            str(timing.candidate),
            f"{timing.outer_step_ms:.1f}",
            f"{timing.task_step_ms:.2f}",
            f"{timing.images_per_second:,.0f}",
            f"{100 * timing.peak_share:.0f}%",
            f"{timing.speedup:.2f}x" if timing.speedup else "-",
            f"{100 * timing.outside:.0f}%" if timing.outside is not None else "-",
            f"{timing.peak_mib:,.0f}" if timing.peak_mib is not None else "-",
        )
    console.print(table)
    console.print(
        "ms/step: whole outer steps, everything included; ms/task: an inner step of one task; of peak: of those "
        "matrix products; outside: share of the step that is not the network's forward and backward pass.",
        soft_wrap=True,
    )
    for name, reason in result.refused.items():
        console.print(f"{name} cannot run here: {reason}", highlight=False, soft_wrap=True)


def presets() -> int:
    """List presets and shipped weights."""
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
    console.print(f"shipped weights: {', '.join(shipped_weights()) or 'none'}", highlight=False)
    return 0
