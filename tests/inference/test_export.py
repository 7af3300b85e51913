"""Exported programs: they say what the classifier says, whatever the algorithm, or say why there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from tests.easy import MINIATURES, REPOSITORY, small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.cli import parse
from torchreptile.core.config.algorithm_table import algorithm_names
from torchreptile.core.errors import ConfigError, NotFittedError, RunError
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.training.weights import MetaWeights

WEIGHTS, SHAPE = "glyphs-5way", (1, 28, 28)
EXAMPLE = REPOSITORY / "examples" / "label_with_onnxruntime.py"


def images(count: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_torch_export_of_every_algorithm(tmp_path: Path, algorithm: str) -> None:
    config = small_config(algorithm=algorithm, **MINIATURES.get(algorithm, {}))
    built = build_algorithm(config, config.task.image_shape, torch.device("cpu"), classes=9)
    shape, way = config.task.image_shape, config.task.way
    classifier = FewShotClassifier(MetaWeights("some", config, built.begin(1), 5, None), seed=2)
    classifier.fit(images(2 * way, 0, shape), list("abcdefgh"[:way]) * 2)
    notes = classifier.export(tmp_path / "c.pt2")
    assert notes.classes == list("abcdefgh"[:way])
    program = torch.export.load(tmp_path / "c.pt2").module()
    queries = images(4, 1, shape)
    x = torch.from_numpy(queries).float() / 255
    printed = program(x) if notes.any_number else torch.cat([program(one[None]) for one in x])
    np.testing.assert_allclose(printed.numpy(), classifier.predict_proba(queries), atol=1e-5)


@pytest.mark.parametrize("algorithm", ["reptile", "protonet"])
def test_onnx_by_the_script_that_needs_nothing_of_ours(tmp_path: Path, algorithm: str) -> None:
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    source: str | MetaWeights = WEIGHTS
    if algorithm != "reptile":
        config = small_config(algorithm=algorithm).replace(dataset="glyphs")
        built = build_algorithm(config, SHAPE, torch.device("cpu"))
        source = MetaWeights("some", config, built.begin(1), 5, None)
    classifier = FewShotClassifier(source).fit(images(6), ["x", "ü", "z"] * 2)
    notes = classifier.export(tmp_path / "c.onnx")
    assert notes.any_number == (algorithm == "protonet")
    for number, image in enumerate(images(3, 4)):
        Image.fromarray(image[0]).save(tmp_path / f"{number}.png")
    drawing, photograph = Image.new("L", (300, 200), 220), Image.new("L", (50, 60), 9)
    ImageDraw.Draw(drawing).line([(70, 30), (220, 170), (90, 150)], fill=40, width=7)
    ImageDraw.Draw(photograph).rectangle([20, 20, 30, 50], fill=230)  # nothing dark on light
    drawing.save(tmp_path / "3.png")
    photograph.save(tmp_path / "4.png")
    pictures = [str(tmp_path / f"{number}.png") for number in range(5)]
    words = [sys.executable, str(EXAMPLE), str(tmp_path / "c.onnx"), *pictures]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    expected = classifier.predict_proba(pictures)
    for line, path, shares in zip(done.stdout.splitlines(), pictures, expected, strict=True):
        name, label, sure = line.split("\t")
        assert (name, label) == (path, classifier.classes_[shares.argmax()])
        assert float(sure) == pytest.approx(shares.max(), abs=1e-4)
    code = EXAMPLE.read_text(encoding="utf-8")
    assert "import torch" not in code


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, program = tmp_path / "c.safetensors", tmp_path / "c.pt2"
    FewShotClassifier(WEIGHTS, steps=2).fit(images(4), ["x", "ü"] * 2).save(saved)
    assert parse(["export", str(saved), "--to", str(program)]).run() == 0
    printed = capsys.readouterr().out
    assert "input: one image per call, (1, 1, 28, 28)" in printed
    assert "(1, 2) of x, ü" in printed
    files = {"classifier.json": ""}
    torch.export.load(program, extra_files=files)
    assert json.loads(json.loads(files["classifier.json"])["classes"]) == ["x", "ü"] or files


class LooksAtItsData(nn.Module):
    """A network whose way depends on what it sees, which no program can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(784, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.flatten(1) if x.sum() > 0 else 1 - x.flatten(1))
        return out


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    classifier = FewShotClassifier(WEIGHTS, steps=1)
    with pytest.raises(NotFittedError):
        classifier.export(tmp_path / "c.pt2")
    classifier.fit(images(4), ["x", "y"] * 2)
    with pytest.raises(ConfigError, match=r"c.pt ends in .pt; a program's name ends in .pt2 or .onnx"):
        classifier.export(tmp_path / "c.pt")
    classifier.set_params(transductive=True).fit(images(4), ["x", "y"] * 2)
    with pytest.raises(ConfigError, match="a program labels each image alone"):
        classifier.export(tmp_path / "c.pt2")
    own = FewShotClassifier(LooksAtItsData(), image_shape=SHAPE, steps=1, batch=2).fit(images(4), ["x", "y"] * 2)
    with pytest.raises(RunError, match="the network cannot be exported: "):
        own.export(tmp_path / "c.pt2")
    assert not list(tmp_path.iterdir())
