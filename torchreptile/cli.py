"""The command ``reptile``: commands as dataclasses, whose field docstrings are the help. What they do is elsewhere.

torch and everything that needs it are imported inside the functions that do the work, so that ``--help``
answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import CascadeSubcommandArgs, FlagCreatePairsOff, OmitArgPrefixes, Positional, arg, subcommand

from torchreptile.config import DATASETS, FUNCTIONS, AlgorithmName, Config, ExecutionName, Precision, Resize, TaskConfig
from torchreptile.errors import ConfigError, TorchReptileError
from torchreptile.presets import PRESETS, TABLE, for_algorithm, preset
from torchreptile.refusals import one_line_refusals
from torchreptile.workers import launch, let_idle_threads_sleep, started_by_launcher

# The flags of the original code, so that the published commands can be pasted.
ORIGINAL_FLAGS: dict[str, tuple[str, ...]] = {
    "--classes": ("--way",),
    "--learning-rate": ("--inner-lr",),
    "--inner-iters": ("--inner-steps",),
    "--meta-step": ("--outer-step-size",),
    "--meta-step-final": ("--outer-step-size-final",),
    "--meta-batch-size": ("--meta-batch",),
    "--meta-iters": ("--outer-steps",),
    "--eval-iters": ("--eval-steps",),
    "--eval-samples": ("--eval-episodes",),
    "--eval-interval": ("--monitor-every",),
    "--checkpoint": ("--out",),
    "--sgd": ("--inner-optimizer", "sgd"),
    "--foml": ("--algorithm", "foml"),
}


# What the original code assumes where its command does not say; published commands rely on some of it (--shots 5).
ORIGINAL_DEFAULTS = Config().replace(
    shots=5,
    train_shots=0,
    inner_batch=5,
    inner_steps=20,
    outer_steps=400_000,
    meta_batch=1,
    outer_step_size=0.1,
    outer_step_size_final=0.1,
)
# Switches that people also add to our own commands do not make one of the original's.
CONVENIENT = {"--sgd", "--foml", "--checkpoint"}


@dataclass(frozen=True)
class Train:
    """Meta-train. Start from a preset (see ``reptile presets``) or from the published Omniglot 5-way settings, and
    change what you like. The original code's flags are understood too (--meta-iters, --inner-iters, --classes,
    --learning-rate, --meta-step, --eval-iters, --eval-samples, --checkpoint, --sgd, --foml, --pretrained ...).
    """

    preset: Annotated[Positional[str], arg(metavar="PRESET")] = ""
    """A named group of settings; see ``reptile presets``."""
    config: Config = field(default_factory=Config)
    out: Path | None = None
    """Run folder to make; it must not exist. By default under runs/."""
    resume: Path | None = None
    """Go on with this run, exactly as if it had not been stopped."""
    model: str = ""
    """A network of your own: a Python file and a class or function in it, such as net.py:Net, called with the image
    shape (C, H, W) and the number of outputs. The file is run; see docs/own-model.md. Name it again with --resume."""
    pretrained: bool = False
    """Do not train: evaluate the run folder named by --out (the original code's flag)."""
    dry_run: bool = False
    """Show what would be done, and do nothing."""
    tensorboard: bool = False
    """Log for TensorBoard as well, into the run folder."""
    workers: int = 1
    """Processes on this machine that share the tasks of every meta-batch; one per core is fastest on a CPU. On
    several machines or GPUs: torchrun -m torchreptile train ..."""

    def run(self) -> int:
        """Train, resume, or show."""
        if self.workers != 1 and not self.dry_run and not started_by_launcher():
            return launch(_at_least_one(self.workers), sys.argv[1:])
        from torchreptile import commands

        if self.dry_run and (self.resume is not None or self.pretrained):
            raise ConfigError(
                "--dry-run shows what a new training would do; it goes with neither --resume nor --pretrained"
            )
        if self.resume is not None:
            if self.config != (preset(self.preset) if self.preset else Config()) or self.out is not None:
                raise ConfigError(f"--resume {self.resume} goes on with the run's own settings; give no others")
            return commands.resume(self.resume, self.tensorboard, self.model)
        if self.pretrained:
            return self._evaluation().run()
        out = self.out or _free(Path("runs") / self._name())
        if self.dry_run:
            return commands.describe(self.config, out, self.model)
        return commands.train(self.config, out, self.tensorboard, self.model)

    def _name(self) -> str:
        """What the run is called if nobody says."""
        task, algorithm = self.config.task, self.config.method.algorithm
        return self.preset if self.preset and not (task.data or task.table) else f"{task.title}-{algorithm}"

    def _evaluation(self) -> Evaluate:
        """What --pretrained asks for."""
        if self.out is None:
            raise ConfigError("--pretrained needs --out RUN (or --checkpoint RUN): the run to evaluate")
        task, evaluation, run = self.config.task, self.config.evaluation, self.config.run
        return Evaluate(
            self.out,
            episodes=evaluation.eval_episodes,
            shots=task.shots,
            way=task.way,
            eval_steps=evaluation.eval_steps,
            eval_batch=evaluation.eval_batch,
            finetune_steps=evaluation.finetune_steps,
            seed=run.seed,
            device=run.device,
            execution=run.execution,
            precision=run.precision,
            task_chunk=run.task_chunk,
            model=self.model,
        )


@dataclass(frozen=True)
class Evaluate:
    """Measure accuracy, transductive and not, with 95% confidence intervals, beside the published numbers; of functions
    the mean squared error, before and after adaptation."""

    source: Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS")]
    """A run folder, or the name of shipped weights such as omniglot-5way."""
    split: Literal["train", "val", "test"] = "test"
    """Which classes to measure on."""
    episodes: int | None = None
    """How many episodes; by default the training's --eval-episodes (10,000 as published)."""
    shots: int | None = None
    """Support images per class; by default the training's."""
    way: int | None = None
    """Classes per episode; must be the training's, but for matching, protonet and pretrained."""
    checkpoint: Literal["last", "best"] = "last"
    """Of a run folder: the last checkpoint, as published, or the one with the best validation accuracy."""
    dataset: str | None = None
    """Another data set than the one trained on."""
    data_root: str | None = None
    """Folder that holds the data set; by default the training's."""
    data: str | None = None
    """Own images, as for reptile train --data, in place of the training's; brought to the size it was trained on."""
    table: str | None = None
    """Own functions, as for reptile train --table, in place of the training's; standardised as those were."""
    eval_steps: int | None = None
    """Inner steps per episode; by default the training's."""
    eval_batch: int | None = None
    """Images in an inner mini-batch; by default the training's."""
    finetune_steps: int | None = None
    """matching, protonet: steps by which the embedding is trained on in every episode, 0 for none; by default the
    training's."""
    seed: int = 0
    """Seed of episodes and mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How episodes are computed: see reptile train --help."""
    precision: Precision = "fp32"
    """fp32, tf32 or bf16."""
    task_chunk: int = 0
    """Episodes computed at a time, to bound memory; 0 takes as many as fit."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""
    workers: int = 1
    """Processes on this machine that share the episodes; one per core is fastest on a CPU."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Measure and print."""
        if self.workers != 1 and not started_by_launcher():
            return launch(_at_least_one(self.workers), sys.argv[1:])
        from torchreptile import commands

        return commands.evaluate(
            self.source,
            self.json,
            self.model,
            split=self.split,
            episodes=self.episodes,
            shots=self.shots,
            way=self.way,
            checkpoint=self.checkpoint,
            dataset=self.dataset,
            data_root=self.data_root,
            data=self.data,
            table=self.table,
            eval_steps=self.eval_steps,
            eval_batch=self.eval_batch,
            finetune_steps=self.finetune_steps,
            seed=self.seed,
            device=self.device,
            execution=self.execution,
            precision=self.precision,
            task_chunk=self.task_chunk,
        )


@dataclass(frozen=True)
class Adapt:
    """Learn classes from a few pictures of each, and label others: predictions with confidences, and a picture of
    them."""

    source: Annotated[Positional[Path], arg(metavar="WEIGHTS|RUN|CLASSIFIER")]
    """Shipped weights by name, a run folder, or a classifier that --save wrote, which needs no --support."""
    query: Path
    """What to label: a picture or a folder. Folders in it named after the classes tell the truth: accuracy is shown."""
    support: Path | None = None
    """What to learn from: a folder with a folder of pictures for every class, whose name is the label."""
    csv: Path | None = None
    """Also write the predictions to this file."""
    picture: Path | None = None
    """Picture of the support set and the labelled pictures; by default a new one under runs/."""
    save: Path | None = None
    """Keep the classifier in this .safetensors file (and a .json beside it)."""
    checkpoint: Literal["last", "best"] = "last"
    """Of a run folder: the last checkpoint, or the one with the best validation accuracy."""
    steps: int | None = None
    """Inner steps on the support set; by default as many as in the weights' own evaluation, in proportion more for more
    classes than they were trained for."""
    transductive: bool = False
    """Label all pictures together, so that what is said of one depends on the others."""
    seed: int = 0
    """Seed of the inner mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Fit, label, print, draw."""
        from torchreptile import commands

        return commands.adapt(
            self.source,
            self.support,
            self.query,
            commands.AdaptFiles(self.csv, self.picture or _free(Path("runs") / "predictions.png"), self.save),
            self.model,
            self.checkpoint,
            self.json,
            steps=self.steps,
            transductive=self.transductive,
            seed=self.seed,
            device=self.device,
        )


@dataclass(frozen=True)
class Export:
    """Write a classifier as a program that needs none of this package, and hold it against the classifier."""

    classifier: Annotated[Positional[Path], arg(metavar="CLASSIFIER")]
    """A .safetensors file that ``reptile adapt --save`` or FewShotClassifier.save wrote."""
    to: Path
    """The file to write: .onnx for ONNX (pip install 'torchreptile[onnx]'), .pt2 for torch.export."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""

    def run(self) -> int:
        """Export, and say what the program takes."""
        from torchreptile import commands

        return commands.export(self.classifier, self.to, self.model)


@dataclass(frozen=True)
class Compare:
    """Train several algorithms on one task under the same budget, measure all alike, and put them into one table and
    one picture. Stopped, the same command goes on. Where there are validation classes, the checkpoint that was best
    on them is measured.
    """

    preset: Annotated[Positional[str], arg(metavar="PRESET")]
    """The task; see ``reptile presets``. Every algorithm has the settings published with it for that task."""
    algorithms: tuple[AlgorithmName, ...]
    """Which algorithms."""
    max_minutes: float = 20.0
    """Minutes of training for each; 0 takes as many outer steps as published."""
    seeds: int = 1
    """Trainings of each algorithm, with the seeds 0, 1, ..."""
    out: Path | None = None
    """Folder for the run folders, comparison.json, comparison.png; by default runs/compare-PRESET, which is gone on
    with where it is there."""
    split: Literal["train", "val", "test"] = "test"
    """Which classes to measure on."""
    episodes: int = 1000
    """Episodes of each measurement."""
    split_scheme: str = "default"
    """How classes are divided: see reptile train --help. omniglot's vinyals has validation classes, reptile has not."""
    outer_steps: int = 0
    """Outer steps of each training; 0 means as published, or as many as the time allows."""
    data_root: str = ""
    """mini-imagenet: the folder that holds it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed: see reptile train --help."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Train what is missing, and print."""
        from torchreptile import commands

        changes: dict[str, object] = {
            "max_minutes": self.max_minutes,
            "split_scheme": self.split_scheme,
            "data_root": self.data_root,
            "device": self.device,
            "execution": self.execution,
        }
        if self.outer_steps:
            changes["outer_steps"] = self.outer_steps
        out = self.out or Path("runs") / f"compare-{self.preset}"
        return commands.compare(
            self.preset, self.algorithms, self.seeds, out, self.split, self.episodes, changes, self.json
        )


@dataclass(frozen=True)
class Reproduce:
    """Reproduce a row of the papers' tables, or a figure of the Reptile paper: train with exactly the published
    settings, measure, and put it beside what was published. Stopped or killed, the same command goes on.
    """

    experiment: Annotated[Positional[str], arg(metavar="NAME")] = ""
    """Which; --list names them."""
    list: bool = False
    """List what can be reproduced."""
    budget: float = 1.0
    """Share of the published outer steps to train for, such as 0.25; step sizes go through their whole schedule all the
    same."""
    seeds: int = 0
    """Trainings of each kind, with the seeds 0, 1, ...; 0 for one of a table row, and one or three of a figure."""
    split: Literal["train", "val", "test"] = "test"
    """Which classes to measure on. Asked again with another split, the same trainings are measured on that too."""
    episodes: int = 0
    """Episodes of each measurement; 0 for 10,000 of a table row as published, and 1,000 or 2,000 of a figure."""
    out: Path | None = None
    """Folder for the run folders and result.json, result.md, result.png; by default runs/reproduce-NAME, which is gone
    on with where it is there."""
    at_once: int = 0
    """Trainings side by side, each with its share of the threads; 0 for one per core on a CPU."""
    data_root: str = ""
    """mini-imagenet: the folder that holds it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed: see reptile train --help."""

    def run(self) -> int:
        """Carry out what is missing, and print."""
        from torchreptile.reproduce import command

        if self.list or not self.experiment:
            if self.experiment:
                raise ConfigError(f"--list lists all experiments; leave out {self.experiment}, or --list")
            return command.experiments()
        share = "" if self.budget == 1 else f"-{self.budget:g}"
        out = self.out or Path("runs") / f"reproduce-{self.experiment}{share}"
        return command.reproduce(
            self.experiment,
            out,
            self.budget,
            self.seeds,
            self.split,
            self.episodes,
            self.at_once,
            self.device,
            self.execution,
            self.data_root,
        )


@dataclass(frozen=True)
class Report:
    """Write a one-file report.html, report.md, report.csv and curves.png: of one run into its folder, of several beside
    one another into a folder of their own.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Run folders."""
    out: Path | None = None
    """Folder to write to; by default the run's own, of several runs a new one under runs/."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""

    def run(self) -> int:
        """Draw, and say where."""
        from torchreptile import commands

        if not self.runs:
            raise ConfigError("no run folder is named; reptile report RUN, or several of them")
        several = _free(Path("runs") / "report") if len(self.runs) > 1 else None
        return commands.report(self.runs, self.out or several, self.model)


@dataclass(frozen=True)
class Bench:
    """Measure how fast this machine meta-trains: every execution beside the loop that people write by hand."""

    network: Literal["omniglot", "mini-imagenet"] = "omniglot"
    """Which of the paper's two networks, on random images of its size."""
    way: int = 5
    """Classes in a task."""
    train_shots: int = 10
    """Images per class in a task."""
    meta_batch: int = 5
    """Tasks per outer step."""
    inner_batch: int = 10
    """Images in an inner mini-batch."""
    inner_steps: int = 5
    """Inner steps per task."""
    executions: tuple[str, ...] = ("naive", "loop", "grouped", "matmul", "vmap", "compiled", "native")
    """What to compare; naive is deepcopy and torch.optim.Adam, task after task."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """Precisions of each; naive runs in fp32 alone."""
    rounds: int = 20
    """Outer steps of each; medians count."""
    memory: bool = True
    """Also measure peak memory, each in a process of its own."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. On a GPU each runs eagerly and as a CUDA graph."""
    out: Path = Path("bench")
    """Folder for NETWORK.json and NETWORK.png."""

    def run(self) -> int:
        """Measure, print and draw."""
        from torchreptile import commands

        work = Config().replace(
            way=self.way,
            train_shots=self.train_shots,
            meta_batch=self.meta_batch,
            inner_batch=self.inner_batch,
            inner_steps=self.inner_steps,
        )
        return commands.bench(
            work, self.network, self.executions, self.precisions, self.rounds, self.memory, self.device, self.out
        )


@dataclass(frozen=True)
class Demo:
    """Serve a page on which you draw symbols of your own, a few times each, and see a new drawing classified while the
    network adapts. Nothing leaves this machine; see docs/demo.md.
    """

    weights: str = "omniglot-5way"
    """A run folder, or the name of shipped weights; trained by reptile or foml."""
    port: int = 8000
    """Port to listen on; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on. By default this machine alone can connect; on any other the page needs the token that is
    printed with its address."""
    open: bool = False
    """Open the page in the browser."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def run(self) -> int:
        """Serve until Ctrl-C."""
        from torchreptile.demo.server import serve

        return serve(self.weights, self.host, self.port, self.device, self.open)


@dataclass(frozen=True)
class Presets:
    """List the presets with what was published for them, and the shipped weights."""

    def run(self) -> int:
        """Print the list."""
        from torchreptile import commands

        return commands.presets()


@dataclass(frozen=True)
class Prepare:
    """Read a data set, check every picture of it and keep it ready for training.

    mini-ImageNet cannot be downloaded: its pictures are ImageNet's. Any form that people have is read in place:
    images/ with train.csv, val.csv and test.csv; images-{train,val,test}.tar(.xz|.gz) with the csv lists;
    {train,val,test}/CLASS/*.jpg; the pickles mini-imagenet-cache-{train,val,test}.pkl or
    miniImageNet_category_split_*.pickle; ILSVRC-2012's train folder with the csv lists. Nothing is extracted.
    A split that is not there is left out.
    """

    dataset: Annotated[Positional[Literal["mini-imagenet"]], arg(metavar="mini-imagenet")]
    """The data set."""
    data_root: str = ""
    """Folder that holds it; by default $TORCHREPTILE_DATA/mini-imagenet."""
    resize: Resize = "nearest"
    """How pictures that are not 84 x 84 yet are brought to that size; published results used nearest. Train and
    evaluate with the same."""

    def run(self) -> int:
        """Prepare, and say what was found."""
        from torchreptile import preparing

        return preparing.prepare(self.data_root, self.resize)


@dataclass(frozen=True)
class Show:
    """Count what a data set or your own images hold, and draw some of it on one sheet: a few images of a few classes of
    every split, and a few tasks as training and evaluation draw them. Look at it before you train.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATASET|FOLDER|FILE.csv")]
    """omniglot, glyphs, mini-imagenet, or own images as for reptile train --data."""
    out: Path = Path("sheet.png")
    """The picture to write."""
    way: int = 5
    """Classes in a task."""
    shots: int = 1
    """Support images per class."""
    queries: int = 3
    """Query images per class."""
    split_scheme: str = "default"
    """How classes are divided: see reptile train --help."""
    split_seed: int = 0
    """Seed of the shuffle that divides the classes."""
    split_ratio: str = ""
    """Own images: the shares of classes for train/val/test."""
    image_size: int = 0
    """Own images: height and width they are brought to."""
    grey: bool = False
    """Own images: one channel instead of three."""
    resize: Resize | Literal["auto"] = "auto"
    """How pictures of another size are brought to the one wanted."""

    def run(self) -> int:
        """Draw, and say what there is."""
        from torchreptile import showing

        if self.dataset in FUNCTIONS:
            raise ConfigError(f"reptile data show draws images, and {self.dataset} has functions")
        known = self.dataset in DATASETS
        task = TaskConfig(
            dataset=self.dataset if known else "folder",
            data="" if known else self.dataset,
            way=self.way,
            shots=self.shots,
            split_scheme=self.split_scheme,
            split_seed=self.split_seed,
            split_ratio=self.split_ratio,
            image_size=self.image_size,
            grey=self.grey,
            resize=self.resize,
        )
        return showing.show(task, self.queries, self.out)


@dataclass(frozen=True)
class Data:
    """Prepare and check data sets."""

    action: Annotated[Prepare, subcommand("prepare")] | Annotated[Show, subcommand("show")]

    def run(self) -> int:
        """Do it."""
        return self.action.run()


def _at_least_one(workers: int) -> int:
    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1")
    return workers


def _free(path: Path) -> Path:
    """The path, or NAME-2, NAME-3 ... where that is taken."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


Command = Train | Evaluate | Adapt | Export | Compare | Reproduce | Report | Bench | Demo | Data | Presets


def _dashed(flag: str) -> str:
    """The original code's flags with dashes, as argparse lets people write them with underscores."""
    return flag.replace("_", "-")


def translate(arguments: Sequence[str]) -> list[str]:
    """Write the original code's flags as ours; ``--name=value`` keeps its value."""
    translated: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        ours = ORIGINAL_FLAGS.get(_dashed(name), (name,))
        translated += [*ours[:-1], ours[-1] + equals + value]
    return translated


def parse(arguments: Sequence[str]) -> Command:
    """The command that ``arguments`` (without the program's name) ask for.

    Raises:
        ConfigError: they make none.
    """
    words, pasted = list(arguments), False
    if words[:1] == ["train"]:
        pasted = any(_dashed(word.partition("=")[0]) in set(ORIGINAL_FLAGS) - CONVENIENT for word in words)
        words = translate(words)
    # A preset's settings, for an algorithm, are the defaults of the other flags: known before the flags are read.
    guess = next((word for word in words if word in PRESETS), "")
    algorithm = _value_of("--algorithm", words) or "reptile"
    command = _parse(words, guess, algorithm, pasted)
    if isinstance(command, Train) and command.preset != guess:
        command = _parse(words, command.preset, algorithm, pasted)
    return command


def _value_of(flag: str, words: Sequence[str]) -> str:
    """The last value given to ``flag``, as ``--flag value`` or ``--flag=value``; empty if there is none."""
    values = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    values += [value for word, value in pairwise(words) if word == flag]
    return values[-1] if values else ""


def _parse(words: list[str], preset_name: str, algorithm: str, pasted: bool) -> Command:
    start = Train(config=for_algorithm(algorithm, preset(preset_name) if preset_name else _plain(words, pasted)))
    kinds = (
        Annotated[Train, subcommand("train", default=start)]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Adapt, subcommand("adapt")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Reproduce, subcommand("reproduce")]
        | Annotated[Report, subcommand("report")]
        | Annotated[Bench, subcommand("bench")]
        | Annotated[Demo, subcommand("demo")]
        | Annotated[Data, subcommand("data")]
        | Annotated[Presets, subcommand("presets")]
    )
    with one_line_refusals():
        command: Command = tyro.cli(
            kinds,
            prog="reptile",
            description="Few-shot meta-learning: the Reptile paper's experiments, and your own.",
            args=words,
            config=(OmitArgPrefixes, CascadeSubcommandArgs, FlagCreatePairsOff),
        )
    return command


def _plain(words: list[str], pasted: bool) -> Config:
    """The settings that count where no preset is named."""
    if _value_of("--table", words):
        return TABLE
    dataset = _value_of("--dataset", words)
    if dataset in PRESETS:  # functions, whose only preset has their name
        return preset(dataset)
    return ORIGINAL_DEFAULTS if pasted else Config()


def main() -> None:
    """Entry point: 0 for success, 2 for what was asked wrongly, 130 for a training stopped by a signal."""
    let_idle_threads_sleep()
    try:
        code = parse(sys.argv[1:]).run()
    except TorchReptileError as error:
        code = _refused(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader, such as `head`, went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (OSError, MemoryError) as error:  # a full disk, a name too long, a sector gone: nothing to add to it
        code = _refused(str(error) or type(error).__name__)
    except RuntimeError as error:
        if "allocate" not in str(error) and "out of memory" not in str(error):
            raise
        code = _refused("not enough memory for these settings; try fewer tasks, smaller batches or fewer steps")
    sys.exit(code)


def _refused(reason: str) -> int:
    print(f"reptile: {' '.join(reason.split())}", file=sys.stderr)
    return 2
