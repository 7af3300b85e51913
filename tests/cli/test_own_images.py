"""Own images through the command line: shown, trained on, resumed and measured, with the leaks told."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import make_classes, make_divided, noise
from torchreptile import cli
from torchreptile.cli.flags.train import Train
from torchreptile.core.errors import ConfigError, DataError, RunError

WORDS = """
    --way 2 --train-shots 3 --inner-batch 3 --inner-steps 2 --meta-batch 2 --outer-steps 3 --eval-steps 2 --eval-batch 2
    --eval-episodes 4 --monitor-episodes 2 --device cpu --execution grouped --image-size 12
"""
SMALL = WORDS.split()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 4)
    monkeypatch.chdir(tmp_path)


def reptile(*words: str) -> int:
    return cli.parse(words).run()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_divided(tmp_path / "own", {"train": 4, "val": 3, "test": 3}, images=5)


def test_train_resume_and_evaluate(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reptile("train", "--data", "own", *SMALL) == 0
    run = tmp_path / "runs" / "own-reptile"
    task = json.loads((run / "config.json").read_text())["task"]
    assert (task["dataset"], task["data"]) == ("folder", str(own))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the path is kept absolute
    assert reptile("train", "--resume", str(run)) == 0
    capsys.readouterr()
    assert reptile("evaluate", str(run)) == 0
    assert "2-way 1-shot, test classes of own" in capsys.readouterr().out
    assert reptile("evaluate", str(run), "--split", "train") == 0
    said = capsys.readouterr().out
    assert "train classes (the classes these weights were trained on: not a test result) of own" in said
    assert len(list(run.glob("eval-own-*.json"))) == 2


def test_other_images_than_those_of_the_run(own: Path, tmp_path: Path) -> None:
    assert reptile("train", "--data", "own", *SMALL, "--out", "run") == 0
    noise(3).save(own / "train/train00/new.png")
    with pytest.raises(RunError, match="was trained on other images than own holds now"):
        reptile("train", "--resume", "run")
    (own / "train/train00/new.png").unlink()
    own.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="own does not exist"):
        reptile("evaluate", "run")
    assert reptile("evaluate", "run", "--data", "moved") == 0
    new = make_divided(tmp_path / "new", {"test": 3}, images=5)
    assert reptile("evaluate", "run", "--data", str(new)) == 0


@pytest.mark.parametrize("words", [[], ["--exclude-duplicates"]])
def test_a_class_more_must_not_make_trained_classes_test_classes(tmp_path: Path, words: list[str]) -> None:
    make_classes(tmp_path / "own", [f"c{n}" for n in range(10)], images=5)
    shutil.copy(tmp_path / "own/c0/00.png", tmp_path / "own/c1/again.png")
    assert reptile("train", "--data", "own", *SMALL, "--out", "run", *words) == 0
    assert reptile("evaluate", "run") == 0
    make_classes(tmp_path / "own", ["another"], images=5, first=50)
    with pytest.raises(RunError, match=r"run was trained on other images than .*own holds now, so classes"):
        reptile("evaluate", "run")
    (tmp_path / "own/another").rename(tmp_path / "another")
    assert reptile("evaluate", "run") == 0


def test_classes_that_are_divided_already_may_change(own: Path) -> None:
    assert reptile("train", "--data", "own", *SMALL, "--out", "run") == 0
    make_classes(own / "test", ["another"], images=5, first=50)
    assert reptile("evaluate", "run") == 0


def test_a_csv_and_grey(tmp_path: Path) -> None:
    make_classes(tmp_path / "own", [f"c{n}" for n in range(8)], images=4)
    files = sorted((tmp_path / "own").rglob("*.png"))
    rows = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in files]
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    words = ["--data", "labels.csv", "--grey", "--split-ratio", "0.5/0.25/0.25", *SMALL, "--out", "run"]
    assert reptile("train", *words) == 0
    assert reptile("evaluate", "run") == 0


@pytest.mark.parametrize("preset", ["omniglot-1shot-5way", "glyphs-5shot-20way"])
def test_a_preset_gives_its_settings_to_own_images(preset: str, own: Path) -> None:
    command = cli.parse(["train", preset, "--data", "own"])
    assert isinstance(command, Train)
    assert (command.config.task.title, command.config.task.way) == ("own", 5 if "5way" in preset else 20)


def test_leaks_are_told_and_left_out(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(own / "train/train02/00.png", own / "test/test01/copy.png")
    assert reptile("train", "--data", "own", *SMALL, "--out", "with") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "warning: 1 identical pictures in two splits (train train02 = test test01); --exclude-duplicates" in told
    assert reptile("train", "--data", "own", *SMALL, "--exclude-duplicates", "--out", "without") == 0
    assert "1 left out of training" in " ".join(capsys.readouterr().err.split())
    assert reptile("train", "--resume", "without") == 0
    for file in (own / "train/train02").glob("0*.png"):
        shutil.copy(file, own / "test/test01" / f"copy{file.name}")
    with pytest.raises(DataError, match=r"every image of the training class train02 is also in"):
        reptile("train", "--data", "own", *SMALL, "--exclude-duplicates", "--out", "none")
    assert reptile("train", "--data", "own", *SMALL, "--out", "none", "--dry-run") == 0
    assert "leaks: 5 identical pictures in two splits" in capsys.readouterr().out


def test_a_sheet_shows_classes_and_tasks(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "train/train00/.DS_Store").touch()
    assert reptile("data", "show", "own", "--way", "3", "--image-size", "12", "--out", "deep/sheet.png") == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "hidden files skipped: 1 (train/train00/.DS_Store)",
        "train: 4 classes, 20 images (5 per class), colour, 12 x 12",
        "val: 3 classes, 15 images (5 per class), colour, 12 x 12",
        "test: 3 classes, 15 images (5 per class), colour, 12 x 12",
        "identical: no picture is in two splits",
        "deep/sheet.png",
    ]
    with Image.open(io.BytesIO(Path("deep/sheet.png").read_bytes())) as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 500
        assert len(sheet.getcolors(1 << 20) or []) > 100  # colours of the classes, not paper alone


def test_a_sheet_of_too_little_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_divided(tmp_path / "own", {"train": 2, "test": 2}, images=1)
    assert reptile("data", "show", "own") == 0
    assert "val: " in capsys.readouterr().out
    assert Path("sheet.png").is_file()


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["show", "nowhere"], DataError, "nowhere does not exist"),
        (["show", "glyphs", "--grey"], ConfigError, "grey is True, but it applies to your own images only"),
        (["show", "own", "--out", "sheet.jpg"], ConfigError, "out is sheet.jpg; it must end in .png"),
        (["show", "own", "--queries", "0"], ConfigError, "queries is 0; it must be at least 1"),
    ],
)
def test_show_refuses(words: list[str], kind: type[Exception], message: str, own: Path) -> None:
    with pytest.raises(kind, match=message):
        reptile("data", *words)


def test_too_few_classes_and_images_are_named(own: Path) -> None:
    with pytest.raises(DataError, match=r"own \(train\) has 4 classes here, too few for 5-way tasks; ask for fewer"):
        reptile("train", "--data", "own")
    with pytest.raises(DataError, match=r"class train00 of own \(train\) has 5 images; 10 shots \+ 0 queries need 10"):
        reptile("train", "--data", "own", "--way", "2")
