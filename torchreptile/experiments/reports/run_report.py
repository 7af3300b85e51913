"""Report of a run: an HTML page, Markdown, CSV and learning curves in its folder (``reptile report RUN``)."""

from __future__ import annotations

import base64
import dataclasses
import shlex
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.config.presets import PRESETS, Preset
from torchreptile.core.environment import hardware, sessions
from torchreptile.core.errors import DataError, RunError
from torchreptile.core.files import write_bytes, write_text
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import Store
from torchreptile.data.splits import Split
from torchreptile.experiments.reports.episode_image import draw_episode, letter
from torchreptile.experiments.reports.function_plots import draw_by_step, draw_functions
from torchreptile.experiments.reports.learning_curves import draw_curves
from torchreptile.experiments.reports.markdown_csv import to_csv, to_markdown
from torchreptile.experiments.reports.run_data import SPLITS, Recorded, read_run
from torchreptile.experiments.reports.sample_episodes import ShownEpisode, sample_episodes
from torchreptile.models.blueprint import Network
from torchreptile.training.evaluation.evaluate import split_store
from torchreptile.training.evaluation.function_fits import fit_functions
from torchreptile.training.evaluation.labels import label_of
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.weights import MetaWeights, load_weights

ALGORITHM_WORDS = {
    "reptile": "Reptile",
    "foml": "first-order MAML (the last inner step)",
    "maml": "MAML",
    "fomaml": "first-order MAML",
    "anil": "ANIL",
    "meta-sgd": "Meta-SGD",
    "matching": "Matching Networks",
    "protonet": "Prototypical Networks",
    "pretrained": "a classifier of all training classes (no meta-learning)",
    "scratch": "nothing (every task from scratch)",
    "mann": "MANN",
    "meta-lstm": "Meta-LSTM",
}
GROUP_WORDS = {
    "task": "Task",
    "method": "Algorithm",
    "inner": "Inner loop",
    "outer": "Outer loop",
    "evaluation": "Evaluation",
    "run": "Run",
}


FITTED = 100
"""Number of functions fitted for the error by inner step; the first few are drawn."""
LISTED = 5
"""Largest number of wrong predictions that are listed under an episode; more are shown only in its picture."""


class ReportFiles(list[Path]):
    """The files of a report, which Jupyter shows as its page."""

    def _repr_html_(self) -> str:
        """Return the page in a frame, so that its styles stay inside."""
        page = next((file for file in self if file.suffix == ".html"), None)
        if page is None:
            return ""
        content = escape(page.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{content}" style="width: 100%; height: 640px; border: 0"></iframe>'


def report(run: str | Path, network: Network | None = None, out: str | Path | None = None) -> ReportFiles:
    """Write ``report.html``, ``report.md``, ``report.csv`` and ``curves.png`` for a run, which may still be training.

    Args:
        run: the run folder.
        network: builds the trained network, if it is not the one published with the algorithm.
        out: folder to write to; by default the run folder.

    Returns:
        The files; in Jupyter, the page is displayed.

    Raises:
        RunError: ``run`` is not a run folder, or one of its files is missing or damaged.
        ConfigError: the weights do not fit the network.

    Example:
        >>> import tempfile, torchreptile as tr
        >>> config = tr.preset("sine").replace(outer_steps=2, eval_episodes=2, monitor_episodes=2, device="cpu")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = tr.train(config, out=f"{folder}/run")
        ...     print([file.name for file in tr.report(f"{folder}/run")])
        ['curves.png', 'report.html', 'report.md', 'report.csv']
    """
    recorded = read_run(Path(run))
    folder, config, metrics, evaluations = recorded.folder, recorded.config, recorded.metrics, recorded.evaluations
    curves = draw_curves(config, metrics)
    weights = load_weights(folder.path)
    page = render(
        "page.html.jinja",
        name=recorded.name,
        about=_about(config),
        progress=progress(recorded),
        evaluations=[_evaluation_rows(evaluation, config) for evaluation in evaluations],
        evaluate_command=shlex.join(["reptile", "evaluate", str(run)]),
        curves=PicturePair(curves, draw_curves(config, metrics, dark=True), "Learning curves of the run"),
        measured=len(metrics),
        monitor_episodes=config.run.monitor_episodes,
        episodes=_episodes(weights, evaluations, network) if not config.task.regression else None,
        functions=_functions(weights, evaluations, network) if config.task.regression else None,
        preset=_preset(config),
        settings=_settings(config),
        environment=_environment(recorded.environment),
        measure="Mean squared error" if config.task.regression else "Accuracy",
        task=config.task,
    )
    texts = {"report.html": page, "report.md": to_markdown([recorded]), "report.csv": to_csv([recorded])}
    return ReportFiles(write_report(folder.path if out is None else Path(out), curves, texts))


def write_report(folder: Path, curves: bytes, texts: dict[str, str]) -> list[Path]:
    """Write ``curves.png`` and text files into a folder, which is created if it is missing.

    Args:
        folder: the folder.
        curves: the PNG file.
        texts: content of the other files by name.

    Returns:
        The files.

    Raises:
        RunError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "curves.png", curves)
        for name, text in texts.items():
            write_text(folder / name, text)
    except OSError as error:
        raise RunError(f"{folder}: the report cannot be written ({error.strerror})") from error
    return [folder / "curves.png", *(folder / name for name in texts)]


class PicturePair:
    """A picture for light and dark pages, as data URIs, with its size and alternative text."""

    def __init__(self, light: bytes, dark: bytes, alt: str) -> None:
        self.light, self.dark = (f"data:image/png;base64,{base64.b64encode(p).decode()}" for p in (light, dark))
        self.alt = alt
        self.width, self.height = (int.from_bytes(light[at : at + 4], "big") for at in (16, 20))  # PNG header


def render(template: str, **values: Any) -> str:
    """Render a template of this package."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    here = resources.files("torchreptile.experiments.reports")
    loader = FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8"))
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    return engine.get_template(template).render(values)


def _about(config: Config) -> str:
    """Describe a training in one sentence."""
    task, algorithm = config.task, config.method.algorithm
    kind = f"learner of functions from {task.shots} points" if task.regression else f"{task.kind} learner"
    return f"A {kind}, meta-trained with {ALGORITHM_WORDS.get(algorithm, algorithm)} on {task.title}"


def progress(run: Recorded) -> str:
    """Describe how many outer steps of a training are done."""
    total, limit = run.config.outer.outer_steps, run.config.outer.max_minutes
    if limit:
        return f"{run.step:,} outer steps done, of at most {total:,} in {limit:g} minutes"
    return f"{run.step:,} of {total:,} outer steps done"


@dataclass(frozen=True)
class _ModeRow:
    """One metric of an evaluation, formatted for the page."""

    mode: str
    explained: str
    accuracy: str
    published: str
    source: str
    difference: str


def _evaluation_rows(evaluation: Evaluation, trained: Config) -> dict[str, Any]:
    """Return what the page shows of an evaluation."""
    task, environment = evaluation.config.task, evaluation.environment
    rows = []
    for name, accuracy in evaluation.result.rows().items():
        cell, words = evaluation.published(name), label_of(name)
        if accuracy is None:
            rows.append(
                _ModeRow(words.name, "a batch of queries is labelled as each alone", "does not apply", "", "", "")
            )
            continue
        if cell is None:
            published = ("none" if evaluation.published_text(name) == "-" else evaluation.published_text(name), "", "")
        else:
            difference = f"{100 * accuracy.mean - cell.accuracy:+.2f}".replace("-", "−")
            published = (str(cell), cell.source, difference)
        rows.append(_ModeRow(words.name, words.long, str(accuracy), *published))
    versions = [f"{name} {environment[name]}" for name in ("torchreptile", "torch") if name in environment]
    return {
        "dataset": task.title,
        "elsewhere": task.title != trained.task.title,
        "trained_on": trained.task.title,
        "split": SPLITS[evaluation.split],
        "task": task.kind,
        "members": task.members,
        "episodes": f"{evaluation.result.episodes:,}",
        "rows": rows,
        "made": [
            f"seed {evaluation.seed}",
            f"{evaluation.step:,} outer steps",
            evaluation.config.adaptation,
            f"{evaluation.seconds:,.1f} s",
            *versions,
            *filter(None, [hardware(environment)]),
        ],
        "command": words_of(environment.get("command")),
    }


def _episodes(weights: MetaWeights, evaluations: list[Evaluation], network: Network | None) -> dict[str, Any]:
    """Return what the page shows of the sampled episodes, or why there are none."""
    try:
        split, store = _classes_to_show(weights.config, evaluations)
        shown = sample_episodes(weights, store, network)
    except DataError as error:
        return {"problem": str(error), "shown": []}
    drawn = [_episode(number, shown_episode) for number, shown_episode in enumerate(shown, 1)]
    return {
        "problem": "",
        "split": SPLITS[split],
        "mode": "transductive" if weights.config.evaluation.transductive else "inductive",
        "step": f"{weights.step:,}",
        "shown": drawn,
        "width": max(208, *(episode["picture"].width // 2 for episode in drawn)),
    }


def _functions(weights: MetaWeights, evaluations: list[Evaluation], network: Network | None) -> dict[str, Any]:
    """Return what the page shows of fitted functions, or why there are none."""
    try:
        split, store = _to_show(weights.config, evaluations)
        store = store if weights.scale is None else split_store(weights.config, split, weights.scale)
        fitted = fit_functions(weights, store, FITTED, network)
    except DataError as error:
        return {"problem": str(error)}
    curves = [draw_functions(fitted, dark=dark) for dark in (False, True)]
    steps = [draw_by_step({"": fitted}, dark=dark) for dark in (False, True)]
    first, last, taken = fitted.by_step[0], fitted.by_step[-1], len(fitted.by_step) - 1
    return {
        "problem": "",
        "split": SPLITS[split],
        "step": f"{weights.step:,}",
        "one_input": store.image_shape == (1,),
        "curves": PicturePair(curves[0], curves[1], "Functions, before and after adaptation"),
        "by_step": PicturePair(steps[0], steps[1], f"Mean squared error by inner step, from {first} to {last}"),
        "caption": f"From {first} before to {last} after {taken} inner steps, over {first.episodes} functions",
    }


def _classes_to_show(config: Config, evaluations: list[Evaluation]) -> tuple[Split, ImageStore]:
    """Select the split and the images to sample episodes from."""
    split, store = _to_show(config, evaluations)
    assert isinstance(store, ImageStore)
    return split, store


def _to_show(config: Config, evaluations: list[Evaluation]) -> tuple[Split, Store]:
    """Select validation classes or tasks; without them test ones if they have been evaluated, else training ones."""
    try:
        return "val", split_store(config, "val")
    except DataError:  # the split has no validation classes
        tested = any(e.split == "test" and e.config.task.title == config.task.title for e in evaluations)
        split: Split = "test" if tested else "train"
        return split, split_store(config, split)


def _episode(number: int, shown: ShownEpisode) -> dict[str, Any]:
    """Return what the page shows of an episode."""
    truth, predicted = shown.episode.query_y[0].tolist(), shown.predicted[0].tolist()
    wrong = [f"{letter(t)} taken for {letter(p)}" for t, p in zip(truth, predicted, strict=True) if t != p]
    count = f"{len(truth) - len(wrong)} of {len(truth)} queries right"
    summary = f"{count}: {', '.join(wrong)}" if wrong else count
    light, dark = (draw_episode(shown.episode, shown.predicted, dark=dark) for dark in (False, True))
    return {
        "number": number,
        "picture": PicturePair(light, dark, f"Episode {number}: {summary}"),
        "caption": summary if len(wrong) <= LISTED else count,
        "searched_for": shown.searched_for,
        "classes": [(letter(label), name) for label, name in enumerate(shown.class_names)],
    }


def _preset(config: Config) -> Preset | None:
    """Return the preset with the same data set, way and shots; for regression, the one with the same data set."""
    task = config.task
    if task.regression:
        return PRESETS.get(task.dataset)
    same = (p for p in PRESETS.values() if (p.config.task.dataset, p.config.task.way) == (task.dataset, task.way))
    return next((p for p in same if p.config.task.shots == task.shots), None)


def _settings(config: Config) -> list[dict[str, Any]]:
    """Return all settings by group, with the preset's value where it differs."""
    preset = _preset(config)
    groups = []
    for name, title in GROUP_WORDS.items():
        own = dataclasses.asdict(getattr(config, name))
        usual = own | (dataclasses.asdict(getattr(preset.config, name)) if preset else {})
        rows = [(key, words_of(value), value != usual[key], words_of(usual[key])) for key, value in own.items()]
        groups.append({"title": title, "rows": rows})
    return groups


def _environment(environment: dict[str, Any]) -> dict[str, str]:
    """Format env.json; values that changed when the run was resumed are listed in order."""
    return {
        name: "; then ".join(dict.fromkeys(words_of(session.get(name)) for session in sessions(environment)))
        for name in environment
        if name != "resumed"
    }


def words_of(value: Any) -> str:
    """Format a JSON value.

    Example:
        >>> words_of(10_000), words_of(None), words_of(True)
        ('10,000', 'none', 'yes')
    """
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return shlex.join(str(part) for part in value)
    return f"{value:,}" if type(value) is int else str(value)
