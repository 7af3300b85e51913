"""The command line: what is typed against the settings it must mean, and what must be refused how."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.in_process import run_reptile
from torchreptile import cli
from torchreptile.cli.commands.evaluate import print_evaluation
from torchreptile.cli.commands.presets import presets
from torchreptile.cli.flags.adapt import Adapt
from torchreptile.cli.flags.compare import Compare
from torchreptile.cli.flags.evaluate import Evaluate
from torchreptile.cli.flags.train import Train
from torchreptile.cli.original_flags import ORIGINAL_DEFAULTS
from torchreptile.core.config import Config
from torchreptile.core.config.presets import PRESETS, preset
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import free
from torchreptile.core.version import __version__
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import Accuracy, Result
from torchreptile.training.weights import shipped_card, shipped_weights

# The original README's command for Omniglot 20-way 1-shot, transductive, word for word behind the script's name.
PASTED = (
    "--shots 1 --classes 20 --inner-batch 20 --inner-iters 10 --meta-step 1 --meta-batch 5 --meta-iters 200000 "
    "--eval-batch 10 --eval-iters 50 --learning-rate 0.0005 --meta-step-final 0 --train-shots 10 "
    "--checkpoint ckpt_o120 --transductive"
)


def parsed_train(words: str) -> Train:
    command = cli.parse(["train", *words.split()])
    assert isinstance(command, Train)
    return command


def test_published_command_pastes_in_and_means_the_preset() -> None:
    command = parsed_train(PASTED)
    assert command.config == preset("omniglot-1shot-20way").replace(transductive=True)
    assert command.out == Path("ckpt_o120")


def test_flags_of_the_original_written_with_underscores_bring_its_defaults_too() -> None:
    assert parsed_train("--meta_iters 7").config == parsed_train("--meta-iters 7").config
    assert parsed_train("--meta_iters 7").config == ORIGINAL_DEFAULTS.replace(outer_steps=7)


@pytest.mark.parametrize(
    "words", ["--foml --algorithm maml", "--algorithm=maml --foml", "--algorithm maml --algorithm mann"]
)
def test_two_algorithms_are_one_too_many(words: str) -> None:
    with pytest.raises(ConfigError, match=r"algorithm is .* and .*; name one"):
        parsed_train(words)
    assert parsed_train("--foml --algorithm foml").config.method.algorithm == "foml"


def test_switches_of_the_original() -> None:
    command = parsed_train(
        "--sgd --foml --foml-tail 5 --replacement --seed 7 --outer-step-size=0.25 --eval-episodes 30"
    )
    wanted = Config().replace(
        inner_optimizer="sgd",
        inner_loss="sum",  # as its TensorFlow goes down losses of which there is one per image
        algorithm="foml",
        foml_tail=5,
        replacement=True,
        seed=7,
        outer_step_size=0.25,
        eval_episodes=30,
    )
    assert command.config == wanted


@pytest.mark.parametrize("name", PRESETS)
def test_preset_gives_its_settings_and_overrides_change_them(name: str) -> None:
    assert parsed_train(name).config == preset(name)
    assert parsed_train(f"--seed 3 {name} --outer-steps 11").config == preset(name).replace(seed=3, outer_steps=11)


def test_a_folder_named_like_a_preset_is_not_the_preset() -> None:
    command = parsed_train("--out glyphs-1shot-20way")
    assert command.config == Config()
    assert command.out == Path("glyphs-1shot-20way")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "--way", "1"], "way is 1; it must be at least 2"),
        (["train", "omniglot"], "unknown preset omniglot"),
        (["train", "--foml-tail", "2"], "algorithm is reptile"),
        (["train", "--dataset", "imagenet"], "imagenet"),
        (["train", "glyphs-1shot-5way", "--device", "tpu"], "device is tpu"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["train", "--resume", "nowhere", "--seed", "3"], "give no others"),
        (["train", "--pretrained"], "--pretrained needs --out"),
        (["evaluate", "nothing-here"], "neither a run folder nor shipped weights"),
        (["report", "nothing-here"], "nothing-here"),
        (["demo", "--port", "70000"], "port is 70000; it must be from 0"),
        ([], "expected one of {train, evaluate"),
        (["trian"], "unrecognized options: trian; available: train, evaluate"),
        (["trian"], "; perhaps you meant train; see reptile --help"),
        (["data", "prepar"], "available: prepare, show; perhaps you meant prepare"),
        (["evaluate"], "missing from reptile evaluate: RUN|WEIGHTS"),
        (["train", "--way", "five"], "error parsing --way: invalid literal for int() with base 10: 'five'"),
        (["train", "--execution", "fast"], "Expected one of ('auto', 'loop'"),
        (["train", "--inner-stepz", "3"], "unrecognized options: --inner-stepz, 3; perhaps you meant --inner-steps"),
        (["evaluate", "x", "--inner-steps", "3"], "--inner-steps, 3; --inner-steps is for reptile bench and train"),
        (["train", "--episodes", "4"], "evaluate and reproduce; perhaps you meant --eval-episodes; see reptile train"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_reptile(*words)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_process_ends_with_the_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torchreptile", "train", "--way", "1"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "reptile: way is 1; it must be at least 2\n"
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys, contextlib\nfrom torchreptile import cli\nsys.argv = ['reptile', 'train', '--help']\n"
        "with contextlib.suppress(SystemExit):\n    cli.main()\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--outer-steps" in done.stdout


def test_default_folder_never_collides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert free(Path("runs") / "mine") == Path("runs/mine-2")
    (tmp_path / "runs" / "p.png").touch()
    assert free(Path("runs") / "p.png") == Path("runs/p-2.png")


def test_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = parsed_train("glyphs-1shot-5way --dry-run --out somewhere")
    assert command.run() == 0
    text = capsys.readouterr().out
    assert "2,500,000 task-steps" in text
    assert json.loads(text[: text.index("\ndata:")])["task"]["dataset"] == "glyphs"
    assert not (tmp_path / "somewhere").exists()


def test_presets_lists_every_preset_with_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert presets() == 0
    text = capsys.readouterr().out
    assert all(name in text for name in PRESETS)
    assert "97.68" in text
    for name in shipped_weights():
        assert f"  {name}, {shipped_card(name)['outer_steps_done']:,}" in text


def test_settings_that_published_numbers_do_not_go_with_are_named() -> None:
    def said(**changes: Any) -> str:
        config = preset("mini-imagenet-1shot-5way").replace(**changes)
        result = Result(Accuracy(0.6, 0.01, 9), Accuracy(0.6, 0.01, 9))
        printed = StringIO()
        evaluation = Evaluation("some", 9, "mini-imagenet", "test", config, result, 0, 1.0, {})
        print_evaluation(evaluation, Console(file=printed, width=200))
        return printed.getvalue()

    assert "the published numbers were obtained with --eval-batch 15 (here 5)" in said(shots=5)
    assert "65.99" in said(shots=5)
    for as_published in ({"shots": 5, "eval_batch": 15}, {}, {"shots": 3}):
        assert "obtained with" not in said(**as_published)


def test_what_a_published_command_leaves_out_is_what_the_original_assumes() -> None:
    """The original README's 5-shot commands name no shots: its default is 5."""
    command = parsed_train("--inner-batch 10 --inner-iters 5 --meta-step 1 --meta-iters 100000 --train-shots 10")
    assert (command.config.task.shots, command.config.outer.meta_batch) == (5, 1)
    assert parsed_train("--foml --sgd").config == Config().replace(
        algorithm="foml", inner_optimizer="sgd", inner_loss="sum"
    )
    assert parsed_train("omniglot-1shot-5way --meta-iters 9").config == preset("omniglot-1shot-5way").replace(
        outer_steps=9
    )


def test_pretrained_evaluates_with_what_was_pasted() -> None:
    command = parsed_train(PASTED + " --pretrained --seed 4")
    wanted = Evaluate(
        Path("ckpt_o120"), episodes=10_000, shots=1, way=20, eval_steps=50, eval_batch=10, finetune_steps=0, seed=4
    )
    assert command._evaluation() == wanted


@pytest.mark.parametrize("words", ["--resume nowhere", "--pretrained --out nowhere"])
def test_dry_run_goes_with_new_trainings_alone(words: str) -> None:
    with pytest.raises(ConfigError, match="--dry-run"):
        parsed_train(f"{words} --dry-run").run()


def test_a_reader_that_goes_away_is_no_error() -> None:
    piped = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m torchreptile presets | head -1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (piped.returncode, piped.stderr) == (0, "")


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["reptile", "--version"])
    cli.main()
    assert capsys.readouterr().out == f"torchreptile {__version__}\n"


@pytest.mark.parametrize(
    ("words", "scheme"),
    [
        ("train --algorithm pretrained --data pictures", "default"),
        ("train omniglot-1shot-5way --algorithm pretrained --data=pictures", "default"),
        ("train --algorithm pretrained --dataset glyphs", "default"),
        ("train --algorithm pretrained --data pictures --split-scheme own", "own"),
        ("train --algorithm pretrained", "vinyals"),
        ("train --algorithm pretrained --dataset omniglot", "vinyals"),
    ],
)
def test_the_split_of_a_publication_is_for_its_own_data_set(words: str, scheme: str) -> None:
    """Chen et al. divide Omniglot as Vinyals did; no other data are divided so because of that."""
    command = cli.parse(words.split())
    assert isinstance(command, Train)
    assert command.config.task.split_scheme == scheme
    moved = preset("omniglot-1shot-5way", "pretrained").replace(data="pictures")
    assert moved.task.split_scheme == "default"
    assert moved.replace(split_scheme="own").task.split_scheme == "own"


def test_own_images_of_any_shape_can_be_compared_and_adapted_to() -> None:
    command = cli.parse(
        [
            "compare",
            "omniglot-1shot-5way",
            "--algorithms",
            "maml",
            "--data",
            "pictures",
            "--shape",
            "3x8x12",
            "--mirror",
        ]
    )
    assert isinstance(command, Compare)
    assert (command.data, command.shape, command.mirror) == ("pictures", "3x8x12", True)
    adapt = cli.parse(["adapt", "omniglot-5way", "--query", "q", "--support", "s", "--unbalanced"])
    assert isinstance(adapt, Adapt)
    assert adapt.unbalanced
