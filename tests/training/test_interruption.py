"""Runs stopped by a signal, killed, or asked to stop: resuming must equal never having stopped, bit by bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.easy import REPOSITORY, TINY, easy_store, killable_config, skip_without_native, small_config
from tests.runs import OnStep, assert_same_run, metrics_without_time, stop_at
from torchreptile.core.distributed.signals import stop_on_signals
from torchreptile.core.environment import environment, sessions
from torchreptile.core.errors import RunError
from torchreptile.data.splits import Splits
from torchreptile.models.conv4.native_library import NativeUnavailableError
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import Division, load_checkpoint, save_checkpoint
from torchreptile.training.resuming import resumed_checkpoint
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.session import TrainingSession
from torchreptile.training.setup import TrainingSetup, build_setup
from torchreptile.training.train import resume, train
from torchreptile.training.trainer import Trainer
from torchreptile.training.weights import load_weights


class Recorder(Callback):
    """Keeps what it was warned of; may stop the training after a step."""

    def __init__(self, stop: int = 0) -> None:
        self.warnings: list[str] = []
        self.stop = stop

    def on_step(self, step: int, done: float, seconds: float) -> None:
        if step == self.stop:
            signal.raise_signal(signal.SIGTERM)

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


@pytest.mark.parametrize("algorithm", ["reptile", "foml"])
@pytest.mark.parametrize("stop", [3, 4])  # between two measurements and at one
def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path, easy_data: Splits, algorithm: str, stop: int) -> None:
    config = small_config(algorithm=algorithm)
    complete = train(config, tmp_path / "complete")
    assert (complete.step, complete.interrupted) == (6, False)
    part = train(config, tmp_path / "parts", stop_at(stop))
    assert (part.step, part.interrupted) == (stop, True)
    assert load_checkpoint(tmp_path / "parts" / "last.pt").step == stop  # saved on stopping, not only every minute
    done = resume(tmp_path / "parts")
    assert (done.step, done.interrupted) == (6, False)
    assert done.measured == complete.measured
    assert_same_run(tmp_path / "complete", tmp_path / "parts")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(outer_steps=2), tmp_path / "run")
    before = metrics_without_time(tmp_path / "run")
    state = load_checkpoint(tmp_path / "run" / "last.pt").state
    again = resume(tmp_path / "run")
    assert (again.step, again.interrupted) == (2, False)
    assert metrics_without_time(tmp_path / "run") == before
    assert all(torch.equal(p, state.params[name]) for name, p in again.state.params.items())


def test_a_line_after_the_last_checkpoint_is_written_again_not_twice(tmp_path: Path, easy_data: Splits) -> None:
    """A kill between a metrics line and the next checkpoint leaves a line too many, perhaps half of one."""
    train(small_config(), tmp_path / "complete")
    train(small_config(), tmp_path / "run", stop_at(3))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 9.9, "seconds": 1.0}\n{"step": 6, "lo')
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "complete", tmp_path / "run")


def test_stopped_again_before_the_next_line(tmp_path: Path, easy_data: Splits) -> None:
    """As above, but the second session is stopped before it has written its own line."""
    config = small_config(outer_steps=8, monitor_every=4)
    train(config, tmp_path / "complete")
    train(config, tmp_path / "run", stop_at(5))
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 9.9, "seconds": 1.0}\n')
    resume(tmp_path / "run", stop_at(6))
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "complete", tmp_path / "run")


def test_other_images_are_refused_on_resuming(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_config(), tmp_path / "run", stop_at(2))
    other = easy_store(30, 20, 5, TINY)
    monkeypatch.setattr(
        "torchreptile.training.setup.load_splits", lambda task: Splits(other, easy_data.val, easy_data.test)
    )
    with pytest.raises(RunError, match="was trained on other images"):
        resume(tmp_path / "run")
    with pytest.raises(RunError, match="is not a run folder"):
        resume(tmp_path / "nowhere")


def test_a_run_goes_on_where_it_is_told_to_and_keeps_all_places(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = small_config(outer_steps=6, execution="loop"), RunFolder(tmp_path / "run")
    train(config, run.path, stop_at(2))
    resume(run.path, stop_at(3))
    assert "resumed" not in run.environment()  # the same place
    threads = torch.get_num_threads()
    monkeypatch.setattr("torch.get_num_threads", lambda: threads + 1)
    monkeypatch.setattr("sys.argv", ["reptile", "train", "--resume"])
    resume(run.path, stop_at(4), computed_as=config.replace(execution="grouped", inner_lr=0.5))
    first, second = sessions(run.environment())
    assert (first["threads"], second["threads"]) == (threads, threads + 1)
    assert second["command"] == "reptile train --resume"
    assert run.config() == config.replace(execution="grouped")  # nothing of what is learned
    assert load_weights(run.path).step == 4
    run.env_file.write_text("{")
    resume(run.path)
    assert run.environment()["threads"] == threads + 1
    assert load_checkpoint(run.last).config == run.config()


def no_native_code() -> None:
    raise NativeUnavailableError("none today")


def test_a_run_keeps_the_execution_that_auto_chose(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that comes or goes between two sessions must not change how sums are rounded."""
    config = small_config(execution="auto")
    monkeypatch.setattr("torchreptile.models.conv4.executions.native_library", no_native_code)
    train(config, tmp_path / "complete")
    train(config, tmp_path / "parts", stop_at(3))
    monkeypatch.undo()
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr("torchreptile.training.setup.load_splits", lambda task: easy_data)
        patch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 4)
        resume(tmp_path / "parts", [recorder], computed_as=config)
    assert recorder.warnings == []
    assert RunFolder(tmp_path / "parts").environment()["execution"] == "grouped"
    assert RunFolder(tmp_path / "parts").config().run.execution == "auto"
    assert_same_run(tmp_path / "complete", tmp_path / "parts")


def test_another_execution_is_told(tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    run, recorder = tmp_path / "run", Recorder(stop=3)
    train(small_config(), run, stop_at(2))
    resume(run, [recorder], computed_as=small_config(execution="loop"))
    assert recorder.warnings == [
        f"{run} was computed with execution grouped until now; it resumes with loop, whose sums are rounded differently"
    ]
    first, second = sessions(RunFolder(run).environment())
    assert (first["execution"], second["execution"]) == ("grouped", "loop")
    last = run / "last.pt"
    save_checkpoint(replace(load_checkpoint(last), execution="native"), last)
    settings = run / "config.json"
    settings.write_text(settings.read_text().replace('"execution": "loop"', '"execution": "auto"'))
    monkeypatch.setattr("torchreptile.models.conv4.executions.native_library", no_native_code)
    monkeypatch.setattr("torchreptile.models.conv4.native.native_library", no_native_code)
    resume(run, [recorder])
    assert "not available here (execution native is not possible here: none today" in recorder.warnings[1]


@pytest.mark.parametrize("algorithm", ["reptile", "meta-sgd"])
def test_a_run_keeps_the_sizes_of_its_chunks(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch, algorithm: str
) -> None:
    """Begun where two tasks, or inner steps, fit into memory, and resumed where all do."""
    config = small_config(algorithm=algorithm, meta_batch=5, outer_steps=4)
    train(config, tmp_path / "large")
    with monkeypatch.context() as small:
        if algorithm == "reptile":
            small.setattr("torchreptile.models.execution.task_chunks.CPU_TASKS", 2)
        else:
            small.setattr("torchreptile.algorithms.maml_base.MAMLBase._segment", lambda *_: 2)
        train(config, tmp_path / "complete")
        train(config, tmp_path / "parts", stop_at(2))
    complete, large = (load_checkpoint(tmp_path / name / "last.pt") for name in ("complete", "large"))
    assert not all(torch.equal(p, large.state.params[name]) for name, p in complete.state.params.items())
    recorder = Recorder()
    resume(tmp_path / "parts", [recorder])
    assert recorder.warnings == []
    assert_same_run(tmp_path / "complete", tmp_path / "parts")
    environment, name = RunFolder(tmp_path / "parts").environment(), "task_chunk"
    if algorithm == "meta-sgd":
        name = "unrolled_steps"
    assert environment[name] == getattr(complete.division, name) == 2
    assert "resumed" not in environment


def test_chunks_that_do_not_fit_any_more_are_told(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_config(), tmp_path / "run", stop_at(2))
    monkeypatch.setattr("torchreptile.models.execution.task_chunks.total_memory", lambda device: 1)
    with pytest.warns(UserWarning, match="computed with 20 tasks at a time until now, which do not fit into memory"):
        resume(tmp_path / "run")
    first, second = sessions(RunFolder(tmp_path / "run").environment())
    assert (first["task_chunk"], second["task_chunk"]) == (20, 1)


def test_another_number_of_threads_or_processes_is_told(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads only where they change bits."""
    skip_without_native()
    recorder, threads = Recorder(stop=3), torch.get_num_threads()
    for execution in ("loop", "native"):
        train(small_config(execution=execution), tmp_path / execution, stop_at(2))
        with monkeypatch.context() as more:
            more.setattr("torch.get_num_threads", lambda: threads + 1)
            more.setattr("torch.set_num_threads", lambda count: None)  # native code puts back what it found
            resume(tmp_path / execution, [recorder])
    loop = tmp_path / "loop"
    assert recorder.warnings == [
        f"{loop} was computed by {threads} thread{'s' * (threads > 1)} until now; "
        f"it continues with {threads + 1} threads, so sums may be rounded differently"
    ]
    last = loop / "last.pt"
    save_checkpoint(replace(load_checkpoint(last), division=Division(threads=1, processes=2)), last)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    resume(loop, [recorder])
    assert recorder.warnings[1:] == [
        f"{loop} was computed by 2 processes with 1 thread each until now; "
        "it continues with 1 thread, so sums may be rounded differently"
    ]


def test_another_processor_or_version_of_torch_is_told(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_config(), tmp_path / "run", stop_at(2))
    here, recorder = environment(torch.device("cpu")), Recorder()
    monkeypatch.setattr(
        "torchreptile.training.setup.environment", lambda device: here | {"processor": "Other 1", "torch": "9.0"}
    )
    resume(tmp_path / "run", [recorder])
    assert recorder.warnings == [
        f"{tmp_path / 'run'} was computed with torch {here['torch']}, {here['processor']} until now; it continues with "
        "torch 9.0, Other 1, so sums may be rounded differently"
    ]
    resume(tmp_path / "run", [recorder])  # there once more
    assert len(recorder.warnings) == 1


def test_the_last_line_has_the_step_size_of_its_step(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the last step was saved and before it was measured."""
    config = small_config(outer_steps=5, monitor_every=3, save_minutes=0.0)
    train(config, tmp_path / "complete")
    measure = TrainingSession.measure

    def killed(self: TrainingSession) -> None:
        if self.step == 5:
            raise KeyboardInterrupt
        measure(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSession, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 5
    resume(tmp_path / "run")
    assert metrics_without_time(tmp_path / "run")[-1]["outer_step_size"] == pytest.approx(0.2)
    assert_same_run(tmp_path / "complete", tmp_path / "run")


def test_a_run_from_a_gpu_goes_on_with_draws_of_its_own(tmp_path: Path, easy_data: Splits) -> None:
    """A generator's state means nothing to one of another kind: the same fresh one every time, and it is said."""
    for name in ("complete", "one", "other"):
        train(small_config(), tmp_path / name, stop_at(3))
    for name in ("one", "other"):
        assert list(moved_at(tmp_path / name, (3,)))
    recorder = Recorder()
    for name in ("complete", "one", "other"):
        assert resume(tmp_path / name, [recorder]).step == 6
    assert len(recorder.warnings) == 2
    assert "one was trained on another kind of device than cpu until outer step 3" in recorder.warnings[0]
    assert_same_run(tmp_path / "one", tmp_path / "other")
    drawn = [load_checkpoint(tmp_path / name / "last.pt").generator for name in ("complete", "one")]
    assert not torch.equal(*drawn)
    setup, folder = setup_of(tmp_path / "one"), RunFolder(tmp_path / "one")
    first, later = (
        resumed_checkpoint(setup, load_checkpoint(folder.last), folder, Callback()).generator
        for _ in moved_at(folder.path, (3, 4))
    )
    assert not torch.equal(first, later)  # or a run moved twice would draw the same tasks again


def setup_of(run: Path) -> TrainingSetup:
    folder = RunFolder(run)
    return build_setup(folder.config(), folder, Callback())


def moved_at(run: Path, steps: tuple[int, ...]) -> Iterator[int]:
    """Make the last checkpoint of ``run`` one from a GPU, after each number of steps."""
    last = RunFolder(run).last
    for step in steps:
        moved = replace(load_checkpoint(last), generator=torch.zeros(16, dtype=torch.uint8), device="cuda", step=step)
        save_checkpoint(moved, last)
        yield step


@pytest.mark.parametrize(
    "state", [torch.zeros(7, dtype=torch.uint8), torch.zeros(16), torch.zeros(5056, dtype=torch.uint8)]
)
def test_what_is_no_generators_state_is_refused(tmp_path: Path, easy_data: Splits, state: torch.Tensor) -> None:
    train(small_config(), tmp_path / "run", stop_at(3))
    last = RunFolder(tmp_path / "run").last
    save_checkpoint(replace(load_checkpoint(last), generator=state), last)
    with pytest.raises(RunError, match=r"last\.pt is damaged: it holds no state of a generator"):
        resume(tmp_path / "run")


def test_processes_on_different_kinds_of_device_are_refused(tmp_path: Path, easy_data: Splits) -> None:
    """The first process sends its generator's state to the others."""
    train(small_config(), tmp_path / "run", stop_at(3))
    folder = RunFolder(tmp_path / "run")
    sent = replace(load_checkpoint(folder.last), generator=torch.zeros(16, dtype=torch.uint8))
    with pytest.raises(RunError, match="processes compute on different kinds of device, one of them on cpu"):
        Trainer(setup_of(tmp_path / "run"), sent, folder).run()


def test_the_first_signal_asks_and_the_second_stops() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def run_and_hit(command: str, folder: Path, steps: int, number: signal.Signals, after: float) -> int:
    """Train in a separate process, send it a signal some seconds after training began; its exit status."""
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "tests" / "train_easy.py", command, folder, str(steps)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(after)
        process.send_signal(number)
        return process.wait()


KILLED_STEPS = 40


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchreptile.training.setup.load_splits", lambda task: splits)
        patch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 4)
        train(killable_config(KILLED_STEPS), folder)
    return folder


def test_sigterm_saves_and_the_run_goes_on(tmp_path: Path, easy_data: Splits, uninterrupted: Path) -> None:
    assert run_and_hit("train", tmp_path / "run", KILLED_STEPS, signal.SIGTERM, after=0.3) == 0
    assert 0 < load_checkpoint(tmp_path / "run" / "last.pt").step < KILLED_STEPS
    resume(tmp_path / "run")
    assert_same_run(uninterrupted, tmp_path / "run")


def test_kill_9_at_random_moments_loses_nothing(tmp_path: Path, easy_data: Splits, uninterrupted: Path) -> None:
    """TORCHREPTILE_KILLS=30 tries harder. A run that is all done is begun anew, so that every kill hits a live one."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"the moments of the kills follow from the seed {seed}")  # shown if the test fails
    rng, run = random.Random(seed), tmp_path / "run0"
    for kill in range(int(os.environ.get("TORCHREPTILE_KILLS", "3"))):
        if run.exists() and load_checkpoint(run / "last.pt").step > 0.7 * KILLED_STEPS:
            resume(run)
            assert_same_run(uninterrupted, run)
            run = tmp_path / f"run{kill}"
        command = "resume" if run.exists() else "train"
        status = run_and_hit(command, run, KILLED_STEPS, signal.SIGKILL, after=rng.uniform(0, 0.6))
        assert status in (-signal.SIGKILL, 0)
    resume(run)
    assert_same_run(uninterrupted, run)


def test_killed_before_its_first_checkpoint_a_run_begins_again(tmp_path: Path, easy_data: Splits) -> None:
    """The settings alone are enough: the beginning depends on nothing else."""
    config = small_config(outer_steps=3)
    train(config, tmp_path / "complete")
    for name, files in (("a", ["config.json"]), ("b", ["config.json", "env.json"])):
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).write_bytes((tmp_path / "complete" / file).read_bytes())
        (folder / ".last.pt-1-beef.tmp").write_bytes(b"half")
        assert resume(folder).step == 3
        assert_same_run(folder, tmp_path / "complete")
        assert not list(folder.glob(".*.tmp"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / ".config.json-1-beef.tmp").write_bytes(b"half")
    assert train(config, tmp_path / "c").step == 3


@pytest.mark.parametrize("damage", [{}, {"head.bias": torch.zeros(7)}])
def test_a_second_moment_that_does_not_fit_is_refused(
    tmp_path: Path, easy_data: Splits, damage: dict[str, torch.Tensor]
) -> None:
    """Adam's fused step would take one of another shape without a word, and go on with nonsense."""
    run = train(small_config(), tmp_path / "run", stop_at(2))
    content = torch.load(run.folder / "last.pt", weights_only=True)
    content["inner"]["v"] = content["inner"]["v"] | damage if damage else {}
    torch.save(content, run.folder / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt is damaged: what its optimisers remember"):
        resume(run.folder)


def test_a_lost_checkpoint_is_no_reason_to_begin_again(tmp_path: Path, easy_data: Splits) -> None:
    run = train(small_config(), tmp_path / "run", stop_at(3)).folder
    (run / "last.pt").unlink()
    before = metrics_without_time(run)
    with pytest.raises(RunError, match=r"run has metrics, but no last\.pt"):
        resume(run)
    assert metrics_without_time(run) == before
    (run / "last.pt").mkdir()
    with pytest.raises(RunError, match=r"no last\.pt to resume from"):
        resume(run)


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path, easy_data: Splits) -> None:
    run = train(small_config(outer_steps=2), tmp_path / "run")
    with RunFolder(run.folder).locked(), pytest.raises(RunError, match="is in use"):
        resume(run.folder)


INNER, OUTER = r"--inner-lr than \S+", r"--outer-step-size than \S+"


@pytest.mark.parametrize("monitor_every", [1, 100])  # noticed in a measurement, or as it is saved
@pytest.mark.parametrize(
    ("settings", "step", "blamed"),
    [
        ({"inner_lr": 1e30}, 0, INNER),
        ({"inner_lr": 1e20, "inner_optimizer": "sgd"}, 0, INNER),
        ({"outer_step_size": 1e30}, 1, OUTER),
        ({"algorithm": "maml", "inner_lr": 1e10}, 0, INNER),
        ({"algorithm": "maml", "outer_step_size": 1e10}, 1, OUTER),
        ({"algorithm": "protonet", "outer_step_size": 1e20}, 1, OUTER),
    ],
)
def test_a_training_that_diverges_says_why_and_keeps_its_last_good_checkpoint(
    tmp_path: Path, easy_data: Splits, settings: dict[str, object], step: int, blamed: str, monitor_every: int
) -> None:
    run = RunFolder(tmp_path / "run")
    config = small_config(**{"outer_steps": 4, "monitor_every": monitor_every, "save_minutes": 0.0} | settings)
    expected_text = rf"diverged before outer step {step + 1} \(.*\); start again with a smaller {blamed}; "
    with pytest.raises(RunError, match=expected_text + rf"{run.last} is still that of outer step {step}$"):
        train(config, run.path)
    last = load_checkpoint(run.last)
    assert last.step == step
    assert all(bool(tensor.isfinite().all()) for tensor in last.state.tensors())
    assert not run.best.is_file() or load_checkpoint(run.best).step == step


def test_one_of_both_settings_is_blamed_where_there_is_no_last_checkpoint(tmp_path: Path, easy_data: Splits) -> None:
    def lose(step: int) -> None:
        (tmp_path / "run" / "last.pt").unlink()

    config = small_config(inner_lr=1e30, monitor_every=2)
    with pytest.raises(RunError, match=rf"start again with a smaller {INNER}, or {OUTER}$"):
        train(config, tmp_path / "run", [OnStep(lose)])


def test_edited_settings_are_refused(tmp_path: Path, easy_data: Splits) -> None:
    run = train(small_config(outer_steps=2), tmp_path / "run")
    settings = run.folder / "config.json"
    settings.write_text(settings.read_text().replace('"outer_steps": 2', '"outer_steps": 5'))
    with pytest.raises(RunError, match="settings of a run cannot change"):
        resume(run.folder)
    settings.unlink()  # then the checkpoint's settings hold
    assert resume(run.folder).step == 2


def test_what_the_caller_set_torch_to_changes_no_bit(tmp_path: Path, easy_data: Splits) -> None:
    """A job does not inherit such settings; a training in it and one in the caller's process must agree."""
    train(small_config(execution="loop"), tmp_path / "one")
    torch.set_float32_matmul_precision("medium")
    try:
        train(small_config(execution="loop"), tmp_path / "other")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert_same_run(tmp_path / "one", tmp_path / "other")
