"""Regenerate docs/bad-inputs.md: create every bad input, give it to the command, and write down its answer.

    python tools/bad_inputs.py > docs/bad-inputs.md

Tiny data sets of the same layout replace the two published ones; nothing is downloaded. A few inputs need Linux and
permission to mount a small disk; without it they are left out of the table. Answers that break the rules (an exit code
other than 2, more than one line, files left behind) are reported on standard error, and the exit code is then 1.
"""

# ruff: noqa: E501 - one input is one line

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from torchreptile import cli
from torchreptile.data.mini_imagenet import dataset as mini_imagenet
from torchreptile.data.omniglot import dataset as omniglot
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.weights import load_weights, save_weights

SECONDS = 120  # time limit of an answer
Words = list[str]
SMALL = [
    "--way",
    "2",
    "--train-shots",
    "2",
    "--inner-batch",
    "2",
    "--inner-steps",
    "1",
    "--meta-batch",
    "1",
    "--outer-steps",
    "2",
    "--eval-steps",
    "1",
    "--eval-batch",
    "2",
    "--eval-episodes",
    "2",
    "--monitor-episodes",
    "2",
    "--device",
    "cpu",
    "--execution",
    "grouped",
    "--image-size",
    "8",
    "--out",
    "run",
]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        what: description of the input.
        make: creates the input in an empty folder, the working folder of the command, and returns the command's words.
        code: expected exit code; 0 for an unusual but valid input.
        leaves: start of the names of files that may remain, such as the folder of a run that has begun.
    """

    what: str
    make: Callable[[Path], Words]
    code: int = 2
    leaves: str = "sheet.png"


@dataclass(frozen=True)
class Answer:
    """The result of running the command.

    Attributes:
        code: exit code.
        out, err: standard output and standard error.
        left: new files.
        crashed: the exception that escaped; empty if there was none.
    """

    code: int
    out: str
    err: str
    left: tuple[str, ...]
    crashed: str = ""


# --------------------------------------------------------------------------------------------- building blocks of inputs


def noise(seed: int, mode: str = "RGB", side: int = 8) -> Image.Image:
    """Return a random picture, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Encode a picture as the content of a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG file whose header claims a size, but which has almost no content."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (head, b"IDAT" + zlib.compress(b""), b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Code:
    """An object whose code runs when it is unpickled carelessly."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("it-ran",)


def write(path: Path, content: bytes | str) -> None:
    """Write a file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def own(folder: Path, splits: tuple[str, ...] = ("train/", "val/", "test/"), images: int = 3) -> Path:
    """Create own images, two classes in each split."""
    for number, name in enumerate(f"{split}{split[:2]}{n}" for split in splits for n in range(2)):
        for index in range(images):
            write(folder / "own" / name / f"{index}.png", encoded(noise(100 * number + index)))
    return folder / "own"


def show(name: str = "own", *more: str) -> Words:
    """Return a command that shows own images, which decodes all of them."""
    return ["data", "show", name, "--image-size", "8", "--way", "2", "--shots", "1", "--queries", "1", *more]


def train(*more: str) -> Words:
    """Return a command that trains on own images."""
    return ["train", "--data", "own", *SMALL, *more]


def picture(content: bytes, name: str = "odd.png") -> Callable[[Path], Words]:
    """Return an input of own images, one of which has this content."""

    def make(folder: Path) -> Words:
        write(own(folder) / "train" / "tr0" / name, content)
        return show()

    return make


def plain(*words: str) -> Callable[[Path], Words]:
    """Return an input of words, in a folder with own images."""

    def make(folder: Path) -> Words:
        own(folder)
        return list(words)

    return make


def network(forward: str, make: str = "pass", method: str = "return x", named: str = "Net") -> Callable[[Path], Words]:
    """Return an input of own images and a custom network with this expression in ``forward``, to train."""
    source = f"""
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

class Net(nn.Module):
    def __init__(self, image_shape, outputs):
        super().__init__()
        self.head = nn.Linear(image_shape[2], outputs)
        {make}

    def step(self, x):
        {method}

    def forward(self, x):
        return {forward}
"""

    def make_input(folder: Path) -> Words:
        own(folder)
        write(folder / "net.py", source)
        words = train("--model", f"net.py:{named}")
        words[words.index("grouped")] = "auto"  # an execution of the built-in networks
        return words

    return make_input


def changed(change: Callable[[Path], object], *words: str) -> Callable[[Path], Words]:
    """Return an input of own images that ``change`` is applied to."""

    def make(folder: Path) -> Words:
        change(own(folder))
        return list(words) or show()

    return make


def table(content: str | bytes, *words: str) -> Callable[[Path], Words]:
    """Return an input of a csv file with functions."""

    def make(folder: Path) -> Words:
        write(folder / "own.csv", content)
        return ["train", *(words or ("--table", "own.csv")), "--outer-steps", "1", "--out", "run"]

    return make


def adapted(change: Callable[[Path], object], *words: str) -> Callable[[Path], Words]:
    """Return an input of two support classes and a picture to label, in a folder that ``change`` is applied to."""

    def make(folder: Path) -> Words:
        for seed, name in enumerate(("support/alpha/1.png", "support/beta/1.png", "query/1.png")):
            write(folder / name, encoded(noise(seed, "L", 28)))
        change(folder)
        return list(words) or ["adapt", "omniglot-5way", "--support", "support", "--query", "query"]

    return make


def asked(*words: str) -> Callable[[Path], Words]:
    """Return an input for ``reptile adapt`` with additional words."""
    return adapted(lambda folder: None, "adapt", "omniglot-5way", "--support", "support", "--query", "query", *words)


def saved(change: Callable[[Path], object], *words: str) -> Callable[[Path], Words]:
    """Return an input of a saved classifier, to whose file ``change`` is applied."""

    def save(folder: Path) -> None:
        support = [folder / "support" / name / "1.png" for name in ("alpha", "beta")]
        FewShotClassifier("omniglot-5way", steps=1).fit(support, ["alpha", "beta"]).save(folder / "own.safetensors")
        change(folder / "own.safetensors")

    return adapted(save, *(words or ("adapt", "own.safetensors", "--query", "query")))


def listing(text: str | bytes) -> Callable[[Path], Words]:
    """Return an input of own images with a csv file of labels."""

    def make(folder: Path) -> Words:
        write(own(folder) / "list.csv", text)
        return show("own/list.csv")

    return make


BASE: dict[str, Path] = {}


def trained(change: Callable[[Path], object], *words: str) -> Callable[[Path], Words]:
    """Return an input of a small run in ``run`` that ``change`` is applied to."""

    def make(folder: Path) -> Words:
        shutil.copytree(BASE["run"], folder / "run")
        change(folder / "run")
        return list(words) or ["train", "--resume", "run"]

    return make


def checkpoint(change: Callable[[dict[str, object]], object]) -> Callable[[Path], Words]:
    """Return an input of a run whose last checkpoint was changed."""

    def edit(run: Path) -> None:
        content = torch.load(run / "last.pt", weights_only=True)
        change(content)
        torch.save(content, run / "last.pt")

    return trained(edit)


def settings(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], Words]:
    """Return an input of a run whose config.json was changed."""

    def edit(run: Path) -> None:
        content = json.loads((run / "config.json").read_text())
        change(content)
        (run / "config.json").write_text(json.dumps(content))

    return trained(edit)


def edit_steps(run: Path) -> None:
    """Change config.json to a longer training."""
    content = json.loads((run / "config.json").read_text())
    content["outer"]["outer_steps"] += 1
    write(run / "config.json", json.dumps(content))


def weights(change: Callable[[Path], object]) -> Callable[[Path], Words]:
    """Return an input of a weights file with its card, to which ``change`` is applied."""

    def make(folder: Path) -> Words:
        save_weights(load_weights(BASE["run"]), folder / "own.safetensors", {})
        change(folder / "own.safetensors")
        return ["evaluate", "own.safetensors", "--device", "cpu"]

    return make


def cut(path: Path, share: float = 0.5) -> None:
    """Cut off the end of a file."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


# ---------------------------------------------------------------------------------------- stand-ins for published data

ARCHIVES = (
    omniglot.Archive("images_background", {"Zeta": (1, 2)}),
    omniglot.Archive("images_evaluation", {"Alpha": (3, 1)}),
)
ZIP = "data/omniglot/images_background.zip"
CLASSES = {"train": ["n00000001", "n00000002"], "val": ["n00000003"], "test": ["n00000004"]}


def drawing(seed: int, side: int = 105, mode: str = "1") -> bytes:
    """Return a random drawing in Omniglot's format."""
    return encoded(
        Image.fromarray(np.random.default_rng(seed).integers(0, 2, (side, side), dtype=np.uint8) * 255).convert(mode)
    )


def zips(change: Callable[[dict[str, bytes]], object] = lambda members: None) -> Callable[[Path], Words]:
    """Return an input of a tiny Omniglot; ``change`` is applied to the members of its first zip."""

    def make(folder: Path) -> Words:
        for archive in ARCHIVES:
            names = [name for members in archive.members().values() for name in members]
            members = {name: drawing(seed) for seed, name in enumerate(names)}
            if archive is ARCHIVES[0]:
                change(members)
            (folder / "data" / "omniglot").mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(
                folder / "data" / "omniglot" / f"{archive.folder}.zip", "w", zipfile.ZIP_DEFLATED
            ) as file:
                for name, content in members.items():
                    file.writestr(name, content)
        return ["data", "show", "omniglot"]

    return make


FIRST = "images_background/Zeta/character01/0001_01.png"


def then(make: Callable[[Path], Words], change: Callable[[Path], object]) -> Callable[[Path], Words]:
    """Return an input whose folder is changed after it was created."""

    def both(folder: Path) -> Words:
        words = make(folder)
        change(folder)
        return words

    return both


def mini(change: Callable[[Path], object] = lambda root: None, *words: str) -> Callable[[Path], Words]:
    """Return an input of a tiny mini-ImageNet (images/ with lists) that ``change`` is applied to."""

    def make(folder: Path) -> Words:
        root = folder / "mini"
        for split, labels in CLASSES.items():
            names = [(f"{label}{place:08d}.jpg", label) for label in labels for place in (1, 2, 3)]
            write(root / f"{split}.csv", "\n".join(["filename,label", *map(",".join, names), ""]))
            for name, _ in names:
                write(root / "images" / name, encoded(noise(int(name[1:17]) % 2**31)))
        change(root)
        return list(words) or ["data", "prepare", "mini-imagenet", "--data-root", "mini"]

    return make


def tarred(
    change: Callable[[tarfile.TarFile], object] = lambda tar: None, cut_to: float = 1
) -> Callable[[Path], Words]:
    """Return an input of training pictures in a tar, to which ``change`` is applied."""

    def to_tar(root: Path) -> None:
        with tarfile.open(root / "images-train.tar.gz", "w:gz") as tar:
            for path in sorted((root / "images").iterdir()):
                if path.name[:9] in CLASSES["train"]:
                    tar.add(path, f"images/{path.name}")
            change(tar)
        cut(root / "images-train.tar.gz", cut_to)

    return mini(to_tar)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    """Return a function that adds an empty member to a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return lambda tar: tar.addfile(info)


def pickled(content: object, cut_to: float = 1) -> Callable[[Path], Words]:
    """Return an input of a single pickle, a common form of mini-ImageNet."""

    def make(folder: Path) -> Words:
        write(folder / "mini" / "mini-imagenet-cache-train.pkl", pickle.dumps(content))
        cut(folder / "mini" / "mini-imagenet-cache-train.pkl", cut_to)
        return ["data", "prepare", "mini-imagenet", "--data-root", "mini"]

    return make


ROWS = {"n1": [0, 1, 2], "n2": [3, 4, 5]}
IMAGES = np.zeros((6, 8, 8, 3), np.uint8)


@contextmanager
def stand_ins() -> Iterator[None]:
    """Replace the published data sets by tiny ones."""
    archives = omniglot.Expected(ARCHIVES, "0" * 64)
    counts = mini_imagenet.Expected({split: len(names) for split, names in CLASSES.items()}, 3, 8)
    real = omniglot.official, mini_imagenet.official
    omniglot.official, mini_imagenet.official = lambda: archives, lambda: counts
    try:
        yield
    finally:
        omniglot.official, mini_imagenet.official = real


# ------------------------------------------------------------------------------------------------ special disks and files


def mounted(options: str, make: Callable[[Path], Words]) -> Callable[[Path], Words]:
    """Return an input with a separate small disk mounted at ``small``."""

    def both(folder: Path) -> Words:
        (folder / "small").mkdir()
        words = make(folder)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder / "small"], check=True, capture_output=True
        )
        return words

    return both


def in_use(run: Path) -> None:
    """Hold the lock of ``run`` until the case is over, as if another process were training in it."""
    lock = RunFolder(run).locked()
    lock.__enter__()
    HELD.append(lock)


HELD: list[object] = []


def upright(folder: Path) -> Words:
    """Create own images with a class of pictures that their EXIF data mark as rotated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for index in range(3):
        write(own(folder) / "train" / "tr0" / f"{index}.png", encoded(noise(index), exif=exif))
    return show()


def loop(root: Path) -> None:
    """Replace a class folder by a link to itself."""
    os.symlink("..", root / "train" / "tr0" / "again")
    os.symlink("round", root / "train" / "round")


def repeated(root: Path) -> None:
    """Copy a picture from a training class to a test class."""
    shutil.copy(root / "train" / "tr0" / "0.png", root / "test" / "te0" / "again.png")


# ------------------------------------------------------------------------------------------------ the inputs

COMMAND_LINE = [
    Case("no command", plain()),
    Case("an unknown command: `reptile trian`", plain("trian")),
    Case("an unknown flag: `train --wya 5`", plain("train", "--wya", "5")),
    Case("an unknown preset", plain("train", "omniglot-1shot-6way")),
    Case("two presets", plain("train", "omniglot-1shot-5way", "glyphs-1shot-5way")),
    Case("`--way five`", plain(*train("--way", "five"))),
    Case("`--way 1`", plain(*train("--way", "1"))),
    Case("`--way 50`, of 2 classes", plain(*train("--way", "50"))),
    Case("`--train-shots 50`, of 3 images", plain(*train("--train-shots", "50"))),
    Case("`--inner-lr nan`", plain(*train("--inner-lr", "nan"))),
    Case("`--inner-lr -1`", plain(*train("--inner-lr", "-1"))),
    Case("`--inner-lr 1e38`: it diverges", plain(*train("--inner-lr", "1e38", "--inner-optimizer", "sgd", "--inner-steps", "3", "--monitor-every", "1")), leaves="run/"),
    Case("`--outer-step-size inf`", plain(*train("--outer-step-size", "inf"))),
    Case("`--max-minutes nan`", plain(*train("--max-minutes", "nan"))),
    Case("`--inner-steps 0`", plain(*train("--inner-steps", "0"))),
    Case("`--seed -1`", plain(*train("--seed", "-1"))),
    Case("`--seed` of 30 digits", plain(*train("--seed", "9" * 30))),
    Case("`--outer-steps 1e5`", plain(*train("--outer-steps", "1e5"))),
    Case("`--workers 0`", plain(*train("--workers", "0"))),
    Case("`--device tpu`", plain(*train("--device", "tpu"))),
    Case("`--device cuda:7`", plain(*train("--device", "cuda:7"))),
    Case("`--execution fast`", plain(*train("--execution", "fast"))),
    Case("`--algorithm mamal`", plain(*train("--algorithm", "mamal"))),
    Case("`--foml-tail 1` for Reptile", plain(*train("--foml-tail", "1"))),
    Case("`--mann-units 3` for MAML", plain(*train("--algorithm", "maml", "--mann-units", "3"))),
    Case("`--foml --algorithm maml`", plain(*train("--foml", "--algorithm", "maml"))),
    Case("`--foml-tail 2` of 2 train shots", plain(*train("--foml", "--foml-tail", "2"))),
    Case("`--train-queries 3` for Reptile", plain(*train("--train-queries", "3"))),
    Case("`--replacement` with an inner batch above the task", plain(*train("--replacement", "--inner-batch", "99"))),
    Case("`--dataset cifar`", plain("train", "--dataset", "cifar", "--out", "run")),
    Case("`--split-scheme lake`", plain("train", "glyphs-1shot-5way", "--split-scheme", "lake", "--out", "run")),
    Case("`--image-size 64` without own images", plain("train", "glyphs-1shot-5way", "--image-size", "64", "--out", "run")),
    Case("`--image-size 5000`", plain(*train("--image-size", "5000"))),
    Case("`--shape 3x8x12` and `--image-size 8`", plain(*train("--shape", "3x8x12"))),
    Case("`--shape 3x8x12` with a network for squares", plain("train", "--data", "own", "--way", "2", "--shape", "3x8x12", "--out", "run")),
    Case("`--shape 3x8`, which is of series, for pictures", plain("train", "--data", "own", "--way", "2", "--shape", "3x8", "--out", "run")),
    Case("`--augment 2`", plain(*train("--augment", "2"))),
    Case("`--split-ratio 0.9/0.9/0.9`", plain(*train("--split-ratio", "0.9/0.9/0.9"))),
    Case("`--split-ratio` for images that are divided", plain(*train("--split-ratio", "0.6/0.2/0.2"))),
    Case("`--task-chunk -1`", plain(*train("--task-chunk", "-1"))),
    Case("`--out` exists and holds something", plain(*train("--out", "own"))),
    Case("`--out` is a file", changed(lambda root: write(root.parent / "file", "x"), *train("--out", "file"))),
    Case("`--out` below a file", changed(lambda root: write(root.parent / "file", "x"), *train("--out", "file/run"))),
    Case("`--out` with a name of 300 letters", plain(*train("--out", "x" * 300))),
    Case("`--out` on a read-only disk", mounted("ro", lambda folder: plain(*train("--out", "small/run"))(folder))),
    Case("`--out` on a disk that is full", mounted("size=64k", lambda folder: plain(*train("--out", "small/run"))(folder)), leaves="small/run/"),
    Case("`--resume` with a setting", trained(lambda run: None, "train", "--resume", "run", "--way", "3")),
    Case("`--resume` and `--dry-run`", trained(lambda run: None, "train", "--resume", "run", "--dry-run")),
    Case("`--resume` of a folder that is no run", plain("train", "--resume", "own")),
    Case("`--pretrained` without `--out`", plain("train", "--pretrained")),
    Case("`data show` of an unknown name", plain("data", "show", "omniglott")),
    Case("`data show --out sheet.jpg`", plain(*show("own", "--out", "sheet.jpg"))),
    Case("`data prepare cifar`", plain("data", "prepare", "cifar")),
    Case("`report` of a folder that is no run", plain("report", "own")),
    Case("`bench --executions fast`", plain("bench", "--executions", "fast")),
    Case("`bench --rounds 0`", plain("bench", "--rounds", "0")),
]  # fmt: skip

OWN = [
    Case("a folder that does not exist", plain(*show("nowhere"))),
    Case("an empty folder", changed(lambda root: (root.parent / "empty").mkdir(), *show("empty"))),
    Case("a zip in place of a folder", changed(lambda root: write(root.parent / "own.zip", "PK"), *show("own.zip"))),
    Case("pictures next to the class folders", changed(lambda root: write(root / "train" / "x.png", encoded(noise(1))))),
    Case("a class without pictures", changed(lambda root: (root / "train" / "empty").mkdir())),
    Case("a folder in a class", changed(lambda root: (root / "train" / "tr0" / "more").mkdir())),
    Case("a folder `valid` next to train and test", changed(lambda root: own(root / "valid"))),
    Case("a class in train and in test", changed(lambda root: shutil.copytree(root / "train" / "tr0", root / "test" / "tr0"))),
    Case("a class too small for shot and query", changed(lambda root: [(root / "val" / "va0" / f"{n}.png").unlink() for n in (1, 2)], *train())),
    Case("one picture in training and test classes", changed(repeated), 0),
    Case("one picture in two splits, trained without duplicates, which leaves a class too small",
         changed(repeated, *train("--exclude-duplicates", "--train-shots", "3"))),
    Case("a text file among the pictures", picture(b"hello", "notes.txt")),
    Case("an empty file", picture(b"")),
    Case("text named .png", picture(b"hello")),
    Case("an error page named .jpg", picture(b"<html>404 Not Found</html>", "x.jpg")),
    Case("a JPEG cut off in the middle", picture(encoded(noise(1, side=64), "JPEG")[:900], "x.jpg")),
    Case("a PNG with one byte changed", picture(bytes(b ^ (i == 60) for i, b in enumerate(encoded(noise(1)))))),
    Case("an EPS, which is a program, named .png", picture(encoded(noise(1), "EPS"))),
    Case("an animated GIF", picture(encoded(noise(1, "P"), "GIF", save_all=True, append_images=[noise(2, "P")]), "x.gif")),
    Case("an animated WebP", picture(encoded(noise(1), "WEBP", save_all=True, append_images=[noise(2)]), "x.webp")),
    Case("a TIFF of two pages", picture(encoded(noise(1), "TIFF", save_all=True, append_images=[noise(2)]), "x.tif")),
    Case("an animated PNG", picture(encoded(noise(1), "PNG", save_all=True, append_images=[noise(2)]))),
    Case("a bomb: a PNG of 70 bytes that claims 60,000 x 60,000 pixels", picture(png_claiming(60000, 60000))),
    Case("9,000 x 9,000 pixels", picture(png_claiming(9000, 9000))),
    Case("0 x 0 pixels", picture(png_claiming(0, 0))),
    Case("32-bit greys above 65,535", picture(encoded(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF"), "x.tif")),
    Case("a picture of floats, one of them NaN", picture(encoded(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"), "x.tif")),
    Case("12-bit greys in a file of 16 bits", picture(encoded(Image.fromarray(np.full((8, 8), 4095, np.uint16))))),
    Case("a mask of 0 and 1", picture(encoded(Image.fromarray(np.eye(8, dtype=np.uint8))))),
    Case("CMYK", picture(encoded(noise(1, "CMYK"), "JPEG"), "x.jpg"), 0),
    Case("16-bit greys", picture(encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000))), 0),
    Case("alpha", picture(encoded(noise(1, "RGBA"))), 0),
    Case("one picture of 1 x 1 pixel", picture(encoded(noise(1, side=1))), 0),
    Case("pictures on their side, as their EXIF data say", upright, 0),
    Case("a link to nothing", changed(lambda root: os.symlink("nowhere", root / "train" / "tr0" / "x.png"))),
    Case("links that go round in a circle", changed(loop)),
    Case("a pipe named .png", changed(lambda root: os.mkfifo(root / "train" / "tr0" / "x.png"))),
    Case("a picture that cannot be read (an error of the disk)", changed(lambda root: os.symlink("/proc/self/mem", root / "train" / "tr0" / "x.png"))),
    Case("a class named with a line break, `|` and quotes", changed(lambda root: os.rename(root / "train" / "tr0", root / "train" / "a\nb|'\"<x>")), 0),
    Case("a class named with a line break, `|` and a quote, with a damaged picture", changed(lambda root: (os.rename(root / "train" / "tr0", root / "train" / "a\nb|'\""), write(root / "train" / "a\nb|'\"" / "x.png", "x")))),
    Case("a file name that is not UTF-8", changed(lambda root: write(root / "train" / "tr0" / os.fsdecode(b"\xff.png"), encoded(noise(1))))),
    Case("a class name that is not UTF-8", changed(lambda root: os.rename(root / "train" / "tr0", root / "train" / os.fsdecode(b"\xff")))),
    Case("a csv without the columns", listing("path,class\ntrain/tr0/0.png,a\n")),
    Case("an empty csv", listing("")),
    Case("a csv with semicolons", listing("file;label\ntrain/tr0/0.png;a\n")),
    Case("a csv label with a comma", listing("file,label\ntrain/tr0/0.png,dog, young\n")),
    Case("a csv with only its first line", listing("file,label\n")),
    Case("a csv in Latin-1", listing("file,label\ntrain/tr0/0.png,caf\xe9\n".encode("latin1"))),
    Case("a csv that lists a missing file", listing("file,label\ntrain/tr0/9.png,a\n")),
    Case("a csv that leads out of its folder", listing("file,label\n../../secret.png,a\n/etc/passwd,b\n")),
    Case("a csv with a label in two splits", listing("file,label,split\ntrain/tr0/0.png,a,train\ntrain/tr0/1.png,a,test\n")),
    Case("a csv with an unknown split", listing("file,label,split\ntrain/tr0/0.png,a,dev\n")),
    Case("a csv that lists a file twice", listing("file,label\ntrain/tr0/0.png,a\ntrain/../train/tr0/0.png,b\n")),
    Case("a csv with a row that lacks its label", listing("file,label\ntrain/tr0/0.png\n")),
    Case("a csv with a NUL", listing(b"file,label\ntrain/tr0/0.png\0,a\n")),
    Case("a csv with an open quote", listing('file,label\n"train/tr0/0.png,a\n')),
    Case("no room for the cache", mounted("size=16k", lambda folder: plain("data", "show", "own", "--image-size", "64")(folder))),
]  # fmt: skip

OMNIGLOT = [
    Case("no zips and no network", plain("data", "show", "omniglot")),
    Case("a zip cut off in the middle", then(zips(), lambda folder: cut(folder / ZIP))),
    Case("text named .zip", then(zips(), lambda folder: write(folder / ZIP, "hello"))),
    Case("an empty zip", zips(lambda members: members.clear())),
    Case("a drawing is missing", zips(lambda members: members.pop(FIRST))),
    Case("a foreign file", zips(lambda members: members.update({"images_background/README": b"x"}))),
    Case("a member that leads out of the target", zips(lambda members: members.update({"../../evil.png": b"x"}))),
    Case("a drawing that is no picture", zips(lambda members: members.update({FIRST: b"hello"}))),
    Case("an empty drawing", zips(lambda members: members.update({FIRST: b""}))),
    Case("a drawing cut off", zips(lambda members: members.update({FIRST: drawing(0)[:100]}))),
    Case("a drawing of another size", zips(lambda members: members.update({FIRST: drawing(0, 28)}))),
    Case("a drawing in colour", zips(lambda members: members.update({FIRST: drawing(0, mode="RGB")}))),
    Case("a member of 1 MB", zips(lambda members: members.update({FIRST: bytes(2**20)}))),
    Case("a bomb: a drawing that claims 60,000 x 60,000 pixels", zips(lambda members: members.update({FIRST: png_claiming(60000, 60000, 1, 0)}))),
    Case("one drawing changed", zips(lambda members: members.update({FIRST: drawing(999)}))),
]  # fmt: skip

MINI = [
    Case("no folder named", plain("data", "prepare", "mini-imagenet")),
    Case("a folder that does not exist", plain("data", "prepare", "mini-imagenet", "--data-root", "nowhere")),
    Case("an empty folder", changed(lambda root: (root.parent / "mini").mkdir(), "data", "prepare", "mini-imagenet", "--data-root", "mini")),
    Case("lists without pictures", mini(lambda root: shutil.rmtree(root / "images"))),
    Case("pictures without lists", mini(lambda root: [(root / f"{split}.csv").unlink() for split in CLASSES])),
    Case("the test list is absent, and test classes are asked for", then(mini(lambda root: (root / "test.csv").unlink(), "evaluate", "run", "--dataset", "mini-imagenet", "--data-root", "mini"), lambda folder: shutil.copytree(BASE["run"], folder / "run"))),
    Case("a list without its columns", mini(lambda root: write(root / "train.csv", "a,b\n"))),
    Case("an empty list", mini(lambda root: write(root / "train.csv", "filename,label\n"))),
    Case("a list that leads out of the folder", mini(lambda root: write(root / "train.csv", "filename,label\n../../x.jpg,n1\n"))),
    Case("a list that is a picture", mini(lambda root: write(root / "train.csv", encoded(noise(1))))),
    Case("a class in two lists", mini(lambda root: write(root / "val.csv", "filename,label\nx.jpg,n00000001\n"))),
    Case("a picture is missing", mini(lambda root: (root / "images" / "n0000000100000001.jpg").unlink())),
    Case("a picture is empty, another cut off", mini(lambda root: (write(root / "images" / "n0000000100000001.jpg", ""), cut(root / "images" / "n0000000200000001.jpg")))),
    Case("a picture that no list names", mini(lambda root: write(root / "images" / "x.jpg", "x"))),
    Case("a picture that is a folder", mini(lambda root: ((root / "images" / "n0000000100000001.jpg").unlink(), (root / "images" / "n0000000100000001.jpg").mkdir()))),
    Case("two pictures of a class instead of three", mini(lambda root: write(root / "val.csv", "filename,label\nn0000000300000001.jpg,n00000003\nn0000000300000002.jpg,n00000003\n"))),
    Case("a tar cut off in the middle", tarred(cut_to=0.5)),
    Case("text named .tar.gz", mini(lambda root: write(root / "images-train.tar.gz", "hello"))),
    Case("a tar with a link", tarred(member("images/x.jpg", tarfile.SYMTYPE, "/etc/passwd"))),
    Case("a tar with a member that leads out of it", tarred(member("../../x.jpg"))),
    Case("a tar with a foreign picture", tarred(member("images/x.jpg"))),
    Case("a pickle with code in it", pickled({"image_data": Code()})),
    Case("a pickle cut off", pickled({"image_data": IMAGES, "class_dict": ROWS}, 0.5)),
    Case("a pickle of something else", pickled([1, 2, 3])),
    Case("a pickle of pictures of another size", pickled({"image_data": IMAGES[:, :4], "class_dict": ROWS})),
    Case("a pickle of floats", pickled({"image_data": IMAGES.astype(np.float32), "class_dict": ROWS})),
    Case("a pickle whose classes name rows it does not have", pickled({"image_data": IMAGES, "class_dict": {"n1": [0, 99]}})),
    Case("a pickle whose classes share a row", pickled({"image_data": IMAGES, "class_dict": {"n1": [0, 1, 2], "n2": [2, 3, 4, 5]}})),
    Case("a pickle with fewer labels than pictures", pickled({"data": IMAGES, "labels": [0, 1]})),
    Case("a pickle of one class too many", pickled({"data": IMAGES, "labels": [0, 0, 1, 1, 2, 2]})),
]  # fmt: skip


def grown(folder: Path) -> Words:
    """Create a run on own images split by ratio, and then add a class, which changes the split."""
    own(folder, tuple("abcdefgh"), images=4)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        if cli.parse(train()).run():
            raise SystemExit("the run on own images failed")
    shutil.copytree(folder / "own" / "aa0", folder / "own" / "_new")
    return ["evaluate", "run"]


RUNS = [
    Case("`last.pt` cut off", trained(lambda run: cut(run / "last.pt"))),
    Case("`last.pt` with 512 bytes of zeros in it, as after a bad sector", trained(lambda run: (run / "last.pt").write_bytes((content := (run / "last.pt").read_bytes())[:20000] + bytes(512) + content[20512:]))),
    Case("`last.pt` empty", trained(lambda run: write(run / "last.pt", ""))),
    Case("`last.pt` is text", trained(lambda run: write(run / "last.pt", "hello"))),
    Case("`last.pt` with code in it", trained(lambda run: torch.save({"x": Code()}, run / "last.pt"))),
    Case("`last.pt` is a bare pickle with code in it", trained(lambda run: write(run / "last.pt", pickle.dumps(Code())))),
    Case("`last.pt` of another program", trained(lambda run: torch.save({"state_dict": {}}, run / "last.pt"))),
    Case("`last.pt` is a folder", trained(lambda run: ((run / "last.pt").unlink(), (run / "last.pt").mkdir()))),
    Case("`last.pt` of another run, which is evaluated", trained(edit_steps, "evaluate", "run", "--device", "cpu")),
    Case("a checkpoint without weights", checkpoint(lambda content: content.pop("params"))),
    Case("a checkpoint whose step is text", checkpoint(lambda content: content.update(step="two"))),
    Case("a checkpoint whose step is -1", checkpoint(lambda content: content.update(step=-1))),
    Case("a checkpoint with a weight of another shape", checkpoint(lambda content: content["params"].update({"head.bias": torch.zeros(7)}))),
    Case("a checkpoint whose second moment has another shape", checkpoint(lambda content: content["inner"]["v"].update({"head.bias": torch.zeros(7)}) or content.update(step=0))),
    Case("a checkpoint whose second moment is missing", checkpoint(lambda content: content["inner"]["v"].clear() or content.update(step=0))),
    Case("a checkpoint with a weight that is NaN", checkpoint(lambda content: (content["params"]["head.bias"].fill_(float("nan")), content.update(step=0))), leaves="run/"),
    Case("`last.pt` is gone, but there are metrics", trained(lambda run: (run / "last.pt").unlink())),
    Case("a checkpoint with a generator of another size", checkpoint(lambda content: content.update(generator=torch.zeros(8, dtype=torch.uint8)))),
    Case("a checkpoint that knows of more metrics than there are", checkpoint(lambda content: content.update(metrics_bytes=10**9)), 0),
    Case("`metrics.jsonl` is gone", trained(lambda run: (run / "metrics.jsonl").unlink()), 0),
    Case("`metrics.jsonl` is garbage, and a report is asked for", trained(lambda run: write(run / "metrics.jsonl", "hello\n"), "report", "run")),
    Case("`metrics.jsonl` has other numbers, and a report is asked for", trained(lambda run: write(run / "metrics.jsonl", '{"step": "x"}\n[]\n'), "report", "run")),
    Case("an `eval-*.json` is garbage, and a report is asked for", trained(lambda run: write(run / "eval-x.json", "{}"), "report", "run")),
    Case("`config.json` is garbage", trained(lambda run: write(run / "config.json", "hello"))),
    Case("`config.json` nests 100,000 deep", trained(lambda run: write(run / "config.json", "[" * 100_000))),
    Case("`config.json` with an unknown setting", settings(lambda content: content["task"].update(colour="red"))),
    Case("`config.json` with NaN", settings(lambda content: content["inner"].update(inner_lr=float("nan")))),
    Case("`config.json` with text for a number", settings(lambda content: content["task"].update(way="2"))),
    Case("`config.json` with another setting than the run had", settings(lambda content: content["outer"].update(outer_steps=9))),
    Case("`--resume` of a run that is being trained", trained(in_use)),
    Case("`--resume` of an empty folder", changed(lambda root: (root.parent / "empty").mkdir(), "train", "--resume", "empty")),
    Case("`--resume` when the images have changed", trained(lambda run: None)),
    Case("`--resume` when the images are gone", trained(lambda run: None)),
    Case("`evaluate` after a class was added, which changes the test classes", grown, leaves="run/"),
    Case("`evaluate --checkpoint best` where there is none", trained(lambda run: (run / "best.pt").unlink(), "evaluate", "run", "--checkpoint", "best")),
    Case("`evaluate` of an unknown name", plain("evaluate", "omniglot-6way")),
    Case("`evaluate --way 3` of a 2-way run", trained(lambda run: None, "evaluate", "run", "--way", "3", "--split", "train")),
    Case("`evaluate --split holdout`", trained(lambda run: None, "evaluate", "run", "--split", "holdout")),
    Case("`evaluate --split train`", trained(lambda run: None, "evaluate", "run", "--split", "train"), 0),
    Case("`evaluate --episodes 1`", trained(lambda run: None, "evaluate", "run", "--episodes", "1")),
    Case("`evaluate --shots 0`", trained(lambda run: None, "evaluate", "run", "--shots", "0")),
    Case("`evaluate --queries 9`, of 3 images", trained(lambda run: None, "evaluate", "run", "--queries", "9", "--split", "train")),
    Case("`evaluate --inner-lr 0`", trained(lambda run: None, "evaluate", "run", "--inner-lr", "0", "--split", "train")),
    Case("`evaluate --inner-lr 1e30`, with which adaptation overflows", trained(lambda run: None, "evaluate", "run", "--inner-lr", "1e30", "--split", "train"), leaves="run/"),
    Case("`evaluate --per-episode` names a file that exists", trained(lambda run: write(run.parent / "out.csv", "mine"), "evaluate", "run", "--per-episode", "out.csv", "--split", "train")),
    Case("`evaluate --per-episode` names no csv file", trained(lambda run: None, "evaluate", "run", "--per-episode", "out.xlsx", "--split", "train")),
    Case("`evaluate --shots 9`, of 3 images", trained(lambda run: None, "evaluate", "run", "--shots", "9")),
    Case("`evaluate --dataset` of other images", trained(lambda run: None, "evaluate", "run", "--dataset", "glyphs")),
    Case("weights cut off", weights(cut)),
    Case("weights that are text", weights(lambda file: write(file, "hello"))),
    Case("weights without their card", weights(lambda file: file.with_suffix(".json").unlink())),
    Case("weights whose card is garbage", weights(lambda file: write(file.with_suffix(".json"), "[]"))),
    Case("weights whose card has no settings", weights(lambda file: write(file.with_suffix(".json"), '{"format": "torchreptile-weights-1"}'))),
    Case("foreign weights with our card", weights(lambda file: save_file({"x": torch.zeros(2)}, file))),
    Case("weights that lack one", weights(lambda file: save_file({"params.head.bias": torch.zeros(2), "inner.steps": torch.zeros(())}, file))),
]  # fmt: skip

INTRODUCTION = """\
# Bad inputs

Inputs that are wrong by mistake or hostile on purpose, with the answer of the command `reptile` to each. Bad inputs are
refused with exit code 2 and one line on standard error that begins with `reptile: `. No code in an input is run, and no
half-written files remain. Unusual but valid inputs are *accepted*, as their answers say.

Generated by `python tools/bad_inputs.py > docs/bad-inputs.md`, with tiny replacements for the two published data sets
(8 x 8 pixels, with other fingerprints than the real ones); the script fails if an answer breaks these rules.
"""

FUNCTIONS = [
    Case("a table that does not exist", table("", "--table", "nowhere.csv")),
    Case("an empty table", table("")),
    Case("a table with only column names", table("task,x,y\n")),
    Case("a table without a column task", table("x,y\n1,2\n")),
    Case("a table with a word in place of a number", table("task,x,y\na,1,2\na,warm,2\n")),
    Case("a table with NaN", table("task,x,y\na,1,2\na,1,nan\n")),
    Case("a table with a row too short", table("task,x,y\na,1,2\na,1\n")),
    Case("a table in UTF-16", table("task,x,y\na,1,2\n".encode("utf-16"))),
    Case("a table with tasks too small", table("task,x,y\n" + "a,1,2\nb,1,2\nc,1,2\n" * 9)),
    Case("a table without the column named by `--targets`", table("task,x,y\na,1,2\n", "--table", "own.csv", "--targets", "z")),
    Case("a table for an algorithm that labels images", table("task,x,y\na,1,2\n", "--table", "own.csv", "--algorithm", "protonet")),
    Case("a table and own images", plain("train", "--table", "own.csv", "--data", "own")),
    Case("a table for a run on images", trained(lambda run: None, "evaluate", "run", "--table", "own.csv")),
    Case("`--way 5` for a table", table("task,x,y\na,1,2\n", "--table", "own.csv", "--way", "5")),
]  # fmt: skip

ADAPTING = [
    Case("`adapt` from an empty folder", adapted(lambda folder: shutil.rmtree(folder / "support") or (folder / "support").mkdir())),
    Case("`adapt` from pictures without class folders", adapted(lambda folder: None, "adapt", "omniglot-5way", "--support", "query", "--query", "query")),
    Case("`adapt` from a single class", adapted(lambda folder: shutil.rmtree(folder / "support" / "beta"))),
    Case("`adapt` from a class without pictures", adapted(lambda folder: (folder / "support" / "beta" / "1.png").unlink())),
    Case("`adapt` without `--support`", adapted(lambda folder: None, "adapt", "omniglot-5way", "--query", "query")),
    Case("`adapt --query` of a missing file", adapted(lambda folder: None, "adapt", "omniglot-5way", "--support", "support", "--query", "nowhere")),
    Case("`adapt --query` of a folder without pictures", adapted(lambda folder: (folder / "query" / "1.png").unlink())),
    Case("`adapt --query` of a picture cut off", adapted(lambda folder: cut(folder / "query" / "1.png"))),
    Case("`adapt` from a picture that is text", adapted(lambda folder: write(folder / "support" / "beta" / "1.png", "hello"))),
    Case("`adapt` with unknown weights", adapted(lambda folder: None, "adapt", "omniglot-6way", "--support", "support", "--query", "query")),
    Case("`adapt` with a missing classifier", adapted(lambda folder: None, "adapt", "no.safetensors", "--query", "query")),
    Case("`adapt --steps -1`", asked("--steps", "-1")),
    Case("`adapt --csv` into a missing folder", asked("--csv", "nowhere/said.csv")),
    Case("`adapt --picture` with another suffix", asked("--picture", "said.jpg")),
    Case("`adapt --save` with another suffix", asked("--save", "mine.pt")),
    Case("`adapt --csv` and `--picture` to one file", asked("--csv", "said.png", "--picture", "said.png")),
    Case("`adapt` with a classifier and `--support`", saved(lambda file: None, "adapt", "own.safetensors", "--support", "support", "--query", "query")),
    Case("`adapt` with a classifier cut off", saved(cut)),
    Case("`adapt` with a classifier that has another one's card", saved(lambda file: write(file.with_suffix(".json"), "{}"))),
    Case("`export` of a file that is no classifier", adapted(lambda folder: write(folder / "own.safetensors", "hello"), "export", "own.safetensors", "--to", "own.onnx")),
    Case("`export` to another kind of file", saved(lambda file: None, "export", "own.safetensors", "--to", "own.pth")),
    Case("`export` into a missing folder", saved(lambda file: None, "export", "own.safetensors", "--to", "nowhere/own.pt2")),
]  # fmt: skip


def result(content: str) -> Callable[[Path], Words]:
    """Return an input of a reproduction's folder whose result.json has this content."""
    return changed(
        lambda root: write(root.parent / "out" / "result.json", content), "reproduce", "sine", "--out", "out"
    )


REPRODUCING = [
    Case("an unknown experiment", plain("reproduce", "omniglot")),
    Case("`--list` and a name", plain("reproduce", "sine", "--list")),
    Case("`--budget` and no name", plain("reproduce", "--budget", "0.5")),
    Case("`--split val` of functions that are drawn", plain("reproduce", "sine", "--split", "val")),
    Case("`--data-root` for a data set that does not use it", plain("reproduce", "omniglot-5way", "--data-root", ".")),
    Case("`--budget 0`", plain("reproduce", "sine", "--budget", "0")),
    Case("`--budget 2`", plain("reproduce", "sine", "--budget", "2")),
    Case("`--budget nan`", plain("reproduce", "sine", "--budget", "nan")),
    Case("`--seeds -1`", plain("reproduce", "sine", "--seeds", "-1")),
    Case("`--episodes 1`", plain("reproduce", "sine", "--episodes", "1")),
    Case("`--at-once -1`", plain("reproduce", "sine", "--at-once", "-1")),
    Case("`--device` that does not exist", plain("reproduce", "sine", "--device", "cuda:7")),
    Case("a missing data set", plain("reproduce", "mini-imagenet-5way", "--data-root", "nowhere")),
    Case("`result.json` is text", result("hello"), leaves="out/"),
    Case("`result.json` of something else", result('{"format": "other"}'), leaves="out/"),
    Case("`result.json` with an invalid training", result('{"format": "torchreptile-result-1", "name": "sine", "share": 1, "commands": [], "note": "", "trainings": [7]}'), leaves="out/"),
    Case("`result.json` of another experiment", result('{"format": "torchreptile-result-1", "name": "omniglot-5way", "share": 0.5, "commands": [], "note": "", "trainings": []}'), leaves="out/"),
    Case("`--out` is a file", changed(lambda root: write(root.parent / "out", "hello"), "reproduce", "sine", "--out", "out")),
]  # fmt: skip


def compared(*words: str) -> Callable[[Path], Words]:
    """Return an input for ``reptile compare`` with one algorithm on sine waves."""
    return plain("compare", "sine", "--algorithms", "reptile", *words)


COMPARING = [
    Case("no algorithm", plain("compare", "sine")),
    Case("an algorithm twice", compared("reptile")),
    Case("an unknown algorithm", compared("mamal")),
    Case("an algorithm that labels images, on functions", compared("protonet")),
    Case("an unknown task", plain("compare", "sinus", "--algorithms", "reptile")),
    Case("`--outer-steps -3`", compared("--outer-steps", "-3")),
    Case("`--max-minutes -1`", compared("--max-minutes", "-1")),
    Case("`--max-minutes nan`", compared("--max-minutes", "nan")),
    Case("`--seeds 0`", compared("--seeds", "0")),
    Case("`--episodes 1`", compared("--episodes", "1")),
    Case("`--split-scheme halves`", plain("compare", "omniglot-1shot-5way", "--algorithms", "reptile", "--split-scheme", "halves")),
    Case("a missing data set", plain("compare", "mini-imagenet-1shot-5way", "--algorithms", "reptile", "--data-root", "nowhere")),
    Case("`comparison.json` is text", changed(lambda root: write(root.parent / "out" / "comparison.json", "hello"), "compare", "sine", "--algorithms", "reptile", "--out", "out"), leaves="out/"),
    Case("`--out` is a file", changed(lambda root: write(root.parent / "out", "hello"), "compare", "sine", "--algorithms", "reptile", "--out", "out")),
]  # fmt: skip

NETWORKS = [
    Case("`--model` of a file that is missing", plain(*train("--model", "none.py:Net"))),
    Case("`--model` of a name that the file does not have", network("self.head(x.mean((1, 2)))", named="Nut")),
    Case("outputs in a list", network("[self.head(x.mean((1, 2)))]")),
    Case("one output too few", network("self.head(x.mean((1, 2)))[:, 1:]")),
    Case("labels instead of logits", network("self.head(x.mean((1, 2))).round().int()")),
    Case("half-precision parameters", network("self.head(x.mean((1, 2)))", make="self.half()")),
    Case("all parameters frozen", network("self.head(x.mean((1, 2)))", make="self.requires_grad_(False)")),
    Case("a state in an attribute", network("self.step(x.mean((1, 2)))", make="self.sum = 0", method="self.sum = self.sum + x.detach().mean(); return self.head(x) + self.sum")),
    Case("weights clamped in `forward`", network("self.step(x.mean((1, 2)))", method="self.head.weight.data.clamp_(0, 0.01); return self.head(x)")),
    Case("a layer computed again in the backward pass", network("self.head(checkpoint(torch.tanh, self.body(x), use_reentrant=False) + checkpoint(self.body, x, use_reentrant=False))", make="self.body = nn.Sequential(nn.Flatten(), nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], image_shape[2]), nn.Tanh())")),
    Case("made for batches of two images", network("self.head(x.mean((1, 2))) + torch.zeros(2)[: len(x), None]")),
    Case("a call of a part that does not exist", network("self.tail(x)")),
]  # fmt: skip

GROUPS = {
    "Command line": COMMAND_LINE,
    "Custom networks": NETWORKS,
    "Own images": OWN,
    "Own functions": FUNCTIONS,
    "Omniglot": OMNIGLOT,
    "mini-ImageNet": MINI,
    "Runs, checkpoints and weights": RUNS,
    "Adapting and exporting": ADAPTING,
    "Comparing": COMPARING,
    "Reproducing": REPRODUCING,
}


# ------------------------------------------------------------------------------------------------ running the command


def files(folder: Path) -> set[str]:
    """Return the relative names of all files below a folder."""
    return {os.path.relpath(Path(where, name), folder) for where, _, names in os.walk(folder) for name in names}


def ask(case: Case, folder: Path) -> Answer | None:
    """Create the input in ``folder`` and run the command; return None if the input cannot be created here."""
    folder.mkdir()
    os.chdir(folder)
    os.environ.update(TORCHREPTILE_CACHE=str(folder / "cache"), HTTPS_PROXY="http://127.0.0.1:9")
    os.environ.pop("TORCHREPTILE_DATA", None)
    try:
        words = case.make(folder)
    except (subprocess.CalledProcessError, FileNotFoundError, PermissionError) as error:
        print(f"left out: {case.what} ({error})", file=sys.stderr)
        return None
    if (folder / "data").is_dir():
        os.environ["TORCHREPTILE_DATA"] = str(folder / "data")
    if "cache" in case.what:
        os.environ["TORCHREPTILE_CACHE"] = str(folder / "small" / "cache")
    hidden = BASE["own"].with_name("hidden")
    if "images are gone" in case.what:
        BASE["own"].rename(hidden)
    added = BASE["own"] / "train" / "tr0" / "9.png"
    if "images have changed" in case.what:
        write(added, encoded(noise(9)))
    before, crashed, code = files(folder), "", 0
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["reptile", *words]
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error")
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        crashed = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        while HELD:
            HELD.pop().__exit__(None, None, None)
        if hidden.exists():
            hidden.rename(BASE["own"])
        added.unlink(missing_ok=True)
    left = sorted(name for name in files(folder) - before if not name.startswith("cache/"))
    if (folder / "small").is_mount():
        subprocess.run(["umount", folder / "small"], check=True)
    return Answer(code, out.getvalue(), err.getvalue(), tuple(left), crashed)


def one_line(answer: Answer, folder: Path) -> str:
    """Return the answer on one line, without temporary names."""
    lines = [
        line.strip(" -│╭╮╰╯─┃━┏┓┡┩└┘┳╇┴")
        for line in (answer.err if answer.code else answer.out or answer.err).splitlines()
    ]
    if lines and lines[-1].startswith("reptile: mini-imagenet in "):  # preceded by a line per problem
        lines = [*lines[:-1], lines[-1].removeprefix("reptile: ")]
    elif answer.code and lines and lines[-1].startswith("reptile: "):  # preceded by the output of a training
        lines = lines[-1:]
    elif not answer.code:
        lines = [line for line in lines if not line.startswith(("val: ", "test: ", "sheet.png"))]
    line = " ".join(line for line in lines if line).replace(f"{folder}/", "").replace(str(folder), ".")
    line = re.sub(r"-\d+-[0-9a-f]{8}\.tmp", "-PID.tmp", re.sub(r"x{100,}", "xxx...", line))
    line = re.sub(r"(metrics_bytes) \d+", r"\1 N", re.sub(r"folder-[0-9a-f]{32}", "folder-HASH", line))
    line = re.sub(r"/tmp/[^ :;,)]*/base/", "", line).replace(str(Path(tempfile.gettempdir())), "/tmp")
    return line.removeprefix("reptile: ")


def faults(case: Case, answer: Answer) -> list[str]:
    """Return the rules that an answer breaks."""
    found = [f"crashed with {answer.crashed}"] if answer.crashed else []
    if answer.code != case.code and not answer.crashed:
        found.append(f"exit code {answer.code}, not {case.code}: {(answer.out + answer.err).strip()[-300:]}")
    if "Traceback" in answer.err:
        found.append("a traceback")
    if case.code and (left := [name for name in answer.left if not name.startswith(case.leaves)]):
        found.append(f"left {', '.join(left)}")
    if any("it-ran" in name for name in answer.left) or Path("it-ran").exists():
        found.append("THE CODE IN THE INPUT RAN")
    last = (answer.err.splitlines() or [""])[-1]
    if answer.code == 2 and not last.startswith("reptile: ") and "full helptext" not in answer.err:
        found.append(f"does not end with a line that gives the reason: {last!r}")
    return found


def prepare_base(folder: Path) -> None:
    """Train the small run that inputs are copied from."""
    folder.mkdir()
    BASE["own"], BASE["run"] = own(folder), folder / "run"
    os.chdir(folder)
    os.environ["TORCHREPTILE_CACHE"] = str(folder / "cache")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = cli.parse(train()).run()
    if code:
        raise SystemExit("the small run failed")


def main() -> int:
    """Print the page; return 1 if an answer breaks the rules."""
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    wrong = number = 0
    home = os.getcwd()
    print(INTRODUCTION, end="")
    with tempfile.TemporaryDirectory() as scratch, stand_ins():
        prepare_base(Path(scratch, "base"))
        for group, cases in GROUPS.items():
            print(f"\n## {group}\n\n| input | answer |\n|---|---|")
            for case in cases:
                if only not in f"{group}: {case.what}":
                    continue
                number += 1
                folder = Path(scratch, str(number))
                answer = ask(case, folder)
                if answer is None:
                    continue
                line = one_line(answer, folder)
                print(
                    f"| {case.what} | {'accepted: ' * (not answer.code)}{line.replace('|', chr(92) + '|')} |",
                    flush=True,
                )
                for fault in faults(case, answer):
                    wrong += 1
                    print(f"FAULT {group}: {case.what}: {fault}", file=sys.stderr)
        os.chdir(home)
    print(f"{number} inputs, {wrong} faults", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
