"""Everything that is read back, made small: each file with the command or function that reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from command import Answer, call, reptile
from mutations import BINARY, CHECKPOINT, TEXT, Mutation, swapped
from PIL import Image

from torchreptile.core.config import Config
from torchreptile.data.loading import load_splits
from torchreptile.experiments.reports.markdown_csv import to_csv
from torchreptile.experiments.reports.run_data import read_run
from torchreptile.experiments.reproduce import find_experiment
from torchreptile.experiments.reproduce.result import read_reproduced
from torchreptile.experiments.reproduce.result_file import ResultFile
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.training.weights import load_weights, save_weights

RESULTS = Path(__file__).parents[2] / "results"
TINY = [
    "--way", "2", "--train-shots", "3", "--inner-batch", "3", "--inner-steps", "1", "--meta-batch", "2",
    "--eval-steps", "2", "--eval-batch", "2", "--eval-episodes", "4", "--monitor-episodes", "2",
    "--execution", "grouped", "--device", "cpu",
]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A file that is read back.

    Attributes:
        name: what it is.
        file: where it lies.
        read: reads it with a command or function of the program; what the answer prints is compared.
        mutations: how it is damaged.
    """

    name: str
    file: Path
    read: Callable[[], Answer]
    mutations: dict[str, Mutation]


def pictures(folder: Path, classes: int = 8, images: int = 6, seed: int = 0) -> Path:
    """Make class folders of small pictures."""
    rng = np.random.default_rng(seed)
    for number in range(classes):
        place = folder / f"class{number:02d}"
        place.mkdir(parents=True)
        colour = rng.integers(0, 256, 3)
        for index in range(images):
            pixels = np.clip(colour + rng.normal(0, 20, (12, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


def must(*words: str) -> str:
    """Run a command that must succeed; return what it printed."""
    answer = reptile(*words, seconds=100)
    if answer.code or answer.crash:
        raise RuntimeError(f"reptile {' '.join(words)}: {answer.crash or answer.err}")
    return answer.out


def make(folder: Path) -> list[Subject]:
    """Make a run, weights, a classifier, a prepared store and results in ``folder``; return what can be stormed.

    TORCHREPTILE_CACHE must be ``folder / "cache"``.
    """
    run, other = folder / "run", folder / "other"
    for out, seed in ((run, "0"), (other, "1")):
        must("train", "--dataset", "glyphs", *TINY, "--outer-steps", "6", "--monitor-every", "3", "--seed", seed,
             "--out", str(out))  # fmt: skip
        must("evaluate", str(out), "--json")
    return [*_run(run, other), *_weights(folder, run, other), *_prepared(folder), *_results(folder)]


def _evaluated(*words: str) -> Answer:
    """Evaluate weights; what is compared is the result."""
    answer = reptile("evaluate", *words, "--episodes", "3", "--json", "--execution", "grouped")
    if answer.code or answer.crash:
        return answer
    return Answer(0, json.dumps(json.loads(answer.out)["result"]), answer.err)


def _reported(run: Path, names: list[str]) -> Answer:
    """Read a run as ``reptile report`` does; drawing is left out, and so is what env.json holds besides ``names``."""

    def read() -> str:
        recorded = read_run(run)
        environment = [recorded.environment.get(name) for name in names]
        return repr((to_csv([recorded]), recorded.metrics, environment, recorded.config.learning()))

    return call(read)


def _run(run: Path, other: Path) -> list[Subject]:
    """Return the files of a run folder."""
    evaluation = next(run.glob("eval-*.json"))
    of_other = next(other.glob("eval-*.json"))
    names = list(read_run(run).environment)

    def evaluated() -> Answer:
        return _evaluated(str(run))

    def best() -> Answer:
        return _evaluated(str(run), "--checkpoint", "best")

    def reported() -> Answer:
        return _reported(run, names)

    def with_swap(kinds: dict[str, Mutation], file: Path) -> dict[str, Mutation]:
        return kinds | {"file swapped": swapped(file)}

    return [
        Subject("last.pt, evaluate", run / "last.pt", evaluated, with_swap(CHECKPOINT, other / "last.pt")),
        Subject("best.pt, evaluate", run / "best.pt", best, with_swap(CHECKPOINT, other / "best.pt")),
        Subject("config.json, evaluate", run / "config.json", evaluated, with_swap(TEXT, other / "config.json")),
        Subject("config.json, report", run / "config.json", reported, with_swap(TEXT, other / "config.json")),
        Subject("env.json, report", run / "env.json", reported, TEXT),
        Subject("metrics.jsonl, report", run / "metrics.jsonl", reported, with_swap(TEXT, other / "metrics.jsonl")),
        Subject("eval-*.json, report", evaluation, reported, with_swap(TEXT, of_other)),
    ]


def _weights(folder: Path, run: Path, other: Path) -> list[Subject]:
    """Return weights and a classifier, each with its card."""
    file, second = folder / "weights.safetensors", folder / "second.safetensors"
    for source, target in ((run, file), (other, second)):
        save_weights(load_weights(source), target, {"data": {}, "training": {}, "results": [], "licence": "none"})

    def evaluated() -> Answer:
        return _evaluated(str(file), "--dataset", "glyphs")

    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)).numpy()
    fitted, again = folder / "classifier.safetensors", folder / "again.safetensors"
    for target, start in ((fitted, 0), (again, 2)):
        classifier = FewShotClassifier(str(run), device="cpu")
        classifier.fit(images[start : start + 4], ["a", "b", "a", "b"]).save(target)

    def predicted() -> Answer:
        return call(lambda: repr(FewShotClassifier.load(fitted, device="cpu").predict_proba(images[4:]).tolist()))

    return [
        Subject("weights, evaluate", file, evaluated, BINARY | {"file swapped": swapped(second)}),
        Subject("card of weights, evaluate", file.with_suffix(".json"), evaluated,
                TEXT | {"file swapped": swapped(second.with_suffix(".json"))}),
        Subject("classifier, predict", fitted, predicted, BINARY | {"file swapped": swapped(again)}),
        Subject("card of a classifier, predict", fitted.with_suffix(".json"), predicted,
                TEXT | {"file swapped": swapped(again.with_suffix(".json"))}),
    ]  # fmt: skip


def _prepared(folder: Path) -> list[Subject]:
    """Return the prepared store of own images."""
    config = Config().replace(data=str(pictures(folder / "pictures")), image_size=12, way=2, shots=1, train_shots=3)

    def loaded() -> Answer:
        def read() -> str:
            splits = load_splits(config.task)
            stores = [splits.train, splits.get("test")]
            return hashlib.sha256(b"".join(store.images.numpy().tobytes() for store in stores)).hexdigest()

        return call(read)

    before = set((folder / "cache").rglob("*"))
    loaded()
    made = [file for file in (folder / "cache").rglob("*") if file.is_file() and file not in before]
    return [Subject(f"prepared store ({file.suffix}), train", file, loaded, BINARY) for file in made]


def _results(folder: Path) -> list[Subject]:
    """Return the result of an experiment."""
    result, other = folder / "result.json", RESULTS / "omniglot-20way.json"
    result.write_text(read_reproduced(RESULTS / "omniglot-5way.json").to_json())  # with a checksum

    def read() -> str:
        ResultFile(folder, find_experiment("omniglot-5way"), 1.0)  # refuses another experiment
        return read_reproduced(result).to_json()

    return [Subject("result.json, reproduce", result, lambda: call(read), TEXT | {"file swapped": swapped(other)})]
