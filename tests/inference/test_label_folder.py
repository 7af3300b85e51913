"""Folders in, labels out: against the classifier itself, the files that are written, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchreptile.cli import parse
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.loading import load_splits
from torchreptile.data.own_images.class_folders import PictureFile
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.inference.label_folder import Labelled, fit_folder, label_pictures
from torchreptile.training.weights import load_weights

WEIGHTS = "glyphs-5way"
NAMES = ("bär", "cat, black", "dog")


@pytest.fixture(scope="module")
def store() -> ImageStore:
    """Generated characters that the weights never saw."""
    return load_splits(load_weights(WEIGHTS).config.task).test


def write(store: ImageStore, folder: Path, first: int, count: int, names: tuple[str, ...] = NAMES) -> Path:
    """Images ``first`` to ``first + count`` of a class for every name, as PNG files in class folders."""
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        start = int(store.class_starts[7 * place])
        for number in range(first, first + count):
            Image.fromarray(store.images[start + number, 0].numpy()).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def support(store: ImageStore, tmp_path: Path) -> Path:
    return write(store, tmp_path / "support", 0, 3)


@pytest.fixture
def query(store: ImageStore, tmp_path: Path) -> Path:
    return write(store, tmp_path / "query", 3, 4)


def run(*words: str) -> int:
    return parse(["adapt", *words]).run()


def test_it_says_what_the_classifier_says(store: ImageStore, support: Path, query: Path) -> None:
    classifier = FewShotClassifier(WEIGHTS)
    assert fit_folder(classifier, support) == dict.fromkeys(NAMES, 3)
    labelled = label_pictures(classifier, query)
    images, labels = [], []
    for place, name in enumerate(NAMES):
        start = int(store.class_starts[7 * place])
        images.append(store.images[start : start + 3])
        labels += [name] * 3
    plain = FewShotClassifier(WEIGHTS).fit(torch.cat(images), labels)
    asked = torch.cat([store.images[int(store.class_starts[7 * place]) + 3 :][:4] for place in range(3)])
    np.testing.assert_allclose(labelled.probabilities, plain.predict_proba(asked), atol=1e-6)
    assert labelled.predicted == plain.predict(asked).tolist()
    assert labelled.truth == tuple(name for name in NAMES for _ in range(4))
    assert labelled.right == sum(a == b for a, b in zip(labelled.predicted, labelled.truth, strict=True))
    assert labelled.right >= 9  # of 12; chance is 4


def test_the_command_writes_a_table_a_picture_and_a_classifier(
    support: Path, query: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, saved, picture = tmp_path / "out.csv", tmp_path / "mine.safetensors", tmp_path / "p.png"
    files = ["--csv", str(out), "--picture", str(picture)]
    assert run(WEIGHTS, "--support", str(support), "--query", str(query), *files, "--save", str(saved)) == 0
    shown = capsys.readouterr().out
    assert "right (" in shown
    assert "cat, black/3.png" in shown
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["true"] for row in rows] == [name for name in NAMES for _ in range(4)]
    shares = np.array([[float(row[f"p({name})"]) for name in NAMES] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert [NAMES[place] for place in shares.argmax(1)] == [row["predicted"] for row in rows]
    with Image.open(picture) as drawn:
        assert drawn.width > 600
        assert drawn.height > 600

    # The classifier that was kept says the same of a picture without a class, and of a folder of such pictures.
    alone = query / "dog" / "3.png"
    for asked, name in ((alone, str(alone)), (query / "dog", "3.png")):
        assert run(str(saved), "--query", str(asked), "--picture", str(picture), "--json") == 0
        content = json.loads(capsys.readouterr().out)
        assert content["right"] is None
        assert content["classes"] == list(NAMES)
        first = content["pictures"][0]
        assert first["file"] == name
        assert list(first["probabilities"].values()) == pytest.approx(shares[8], abs=1e-5)


def test_folders_of_other_names_are_no_truth(support: Path, query: Path) -> None:
    (query / "dog").rename(query / "wolf")
    classifier = FewShotClassifier(WEIGHTS)
    fit_folder(classifier, support)
    labelled = label_pictures(classifier, query)
    assert labelled.truth is None
    assert labelled.right is None
    assert labelled.unknown_folders == ("wolf",)
    assert "true" not in labelled.to_csv().splitlines()[0]


def test_what_cannot_be_is_refused(support: Path, query: Path, tmp_path: Path) -> None:
    def refused(kind: type[Exception], shown: str, *words: str) -> None:
        with pytest.raises(kind, match=shown):
            run(*words, "--picture", str(tmp_path / "p.png"))
        assert not (tmp_path / "p.png").exists()

    asked, learn = ("--query", str(query)), ("--support", str(support))
    refused(ConfigError, "has not learned your classes yet", WEIGHTS, *asked)
    refused(DataError, "nowhere: no such folder", WEIGHTS, *asked, "--support", str(tmp_path / "nowhere"))
    refused(DataError, "3.png: not a folder", WEIGHTS, *asked, "--support", str(query / "dog" / "3.png"))
    refused(DataError, "nowhere.png: No such file", WEIGHTS, *learn, "--query", str(tmp_path / "nowhere.png"))
    (tmp_path / "empty").mkdir()
    refused(DataError, "there are no pictures in it", WEIGHTS, *learn, "--query", str(tmp_path / "empty"))
    refused(DataError, "no class folders", WEIGHTS, *asked, "--support", str(tmp_path / "empty"))
    (query / "dog" / "notes.txt").write_text("woof")
    refused(DataError, "dog/notes.txt: not a picture by its name", WEIGHTS, *learn, *asked)
    (query / "dog" / "notes.txt").rename(query / "dog" / "notes.png")
    refused(DataError, "notes.png: not a picture, or damaged", WEIGHTS, *learn, *asked)
    saved = tmp_path / "mine.safetensors"
    classifier = FewShotClassifier(WEIGHTS, steps=1)
    fit_folder(classifier, support)
    classifier.save(saved)
    refused(
        ConfigError, "learned its classes; leave out --support, --steps", str(saved), *learn, *asked, "--steps", "3"
    )
    refused(ConfigError, "learned its classes; leave out --checkpoint", str(saved), *asked, "--checkpoint", "best")
    refused(
        ConfigError, "--csv is .*; there is no folder", WEIGHTS, *learn, *asked, "--csv", str(tmp_path / "no" / "o.csv")
    )
    refused(ConfigError, "its name must end in .safetensors", WEIGHTS, *learn, *asked, "--save", str(tmp_path / "z.pt"))
    same = ("--save", str(tmp_path / "k.safetensors"), "--csv", str(tmp_path / "k.json"))
    refused(ConfigError, "name the same file", WEIGHTS, *learn, *asked, *same)
    refused(ConfigError, "nofile.safetensors: there is no such file", str(tmp_path / "nofile.safetensors"), *asked)
    divided = tmp_path / "divided"
    for split in ("train", "test"):
        (divided / split).mkdir(parents=True)
    support.rename(divided / "train" / "a")
    (divided / "train" / "a" / "bär").rename(divided / "test" / "b")
    for odd in ("cat, black", "dog"):
        for file in (divided / "train" / "a" / odd).iterdir():
            file.rename(divided / "train" / "a" / f"{odd}{file.name}")
        (divided / "train" / "a" / odd).rmdir()
    refused(
        DataError,
        "is divided into test and train; name one of these folders",
        WEIGHTS,
        *asked,
        "--support",
        str(divided),
    )


def test_names_in_the_table_are_no_formulas() -> None:
    picture = PictureFile(Path("=1+1.png"), "=1+1.png", 1, 0)
    labelled = Labelled(
        ("@a", "b"), (picture,), torch.zeros(1, 1, 1, 1), None, np.array([[0.75, 0.25]], dtype=np.float32)
    )
    assert labelled.to_csv().splitlines() == [
        "file,predicted,confidence,p(@a),p(b)",
        "'=1+1.png,'@a,0.750000,0.750000,0.250000",
    ]
