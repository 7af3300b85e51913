"""Progress on standard error: one live line on a terminal or in Jupyter, plain lines elsewhere."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Self, cast, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from torchreptile.core.config import Config
from torchreptile.core.plain_console import PlainConsole
from torchreptile.core.streams import Forgiving
from torchreptile.models.execution.execution import Execution
from torchreptile.training.callbacks import OutputCallback
from torchreptile.training.evaluation.results import Fit, Measured

PLAIN_SECONDS = 60.0  # between plain lines, where no measurement makes one
LIVE_SECONDS = 0.1  # between two states of a live line
BAR_WIDTH = 20  # characters


def duration(seconds: float) -> str:
    """Format a duration as ``1:02:03`` or ``2:03``.

    >>> duration(3723), duration(123.4)
    ('1:02:03', '2:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StandardError(PlainConsole):
    """A console on standard error; what cannot be written there is left out and never raises.

    Example:
        >>> StandardError(quiet=True).print("nothing")
    """

    def __init__(self, quiet: bool = False) -> None:
        """Write to standard error, or nowhere if ``quiet``."""
        super().__init__(stderr=True, quiet=quiet)

    @property
    def file(self) -> IO[str]:
        """Return the stream that is standard error now."""
        return cast("IO[str]", Forgiving(super().file))

    @file.setter
    def file(self, stream: IO[str]) -> None:
        """Write to another stream."""
        self._file = stream


class _LiveLine:
    """A line with a bar that changes in place; plain lines now and then where nothing can change in place."""

    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._jupyter: Any = None  # the handle of the output in a notebook
        self._shown = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, numbers="")

    def start(self) -> None:
        """Begin to show."""
        self._shown = time.monotonic()
        if not self._console.is_jupyter:  # where rich would want widgets
            self._bar.start()

    def stop(self) -> None:
        """Clear the line."""
        self._bar.stop()
        if self._jupyter is not None:
            self._jupyter.update({"text/plain": ""}, raw=True)
            self._jupyter = None

    def due(self) -> bool:
        """Whether it is time for another state of the line; False most times for those that ask often."""
        live = self._console.is_terminal or self._console.is_jupyter
        return time.monotonic() - self._shown >= (LIVE_SECONDS if live else PLAIN_SECONDS)

    def show(self, done: float, total: float, numbers: str, plain: str) -> None:
        """Show that ``done`` of ``total`` is finished: ``numbers`` next to the bar, or ``plain`` as a separate line."""
        if self._console.is_jupyter:
            self._show_in_jupyter(done / total, numbers)
        elif self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=total, numbers=numbers)
        elif self.due():
            self._console.print(plain, highlight=False, soft_wrap=True, markup=False)
        else:
            return
        self._shown = time.monotonic()

    def _show_in_jupyter(self, share: float, numbers: str) -> None:
        """Replace the text of one output of the cell, which works without widgets."""
        filled = round(BAR_WIDTH * share)
        text = {"text/plain": f"{self._what} {'━' * filled}{'╌' * (BAR_WIDTH - filled)} {numbers}"}
        if self._jupyter is None:
            self._jupyter = import_module("IPython.display").display(text, raw=True, display_id=True)
        else:
            self._jupyter.update(text, raw=True)


@final
class ProgressBar(OutputCallback):
    """Callback that shows a training: step, loss, accuracy with its interval, ms per outer step, time left.

    On a terminal and in Jupyter one line changes in place, and every measurement prints a line that stays; in a file
    there is also a line every minute.

    Example:
        >>> import tempfile
        >>> from rich.console import Console
        >>> import torchreptile as tr
        >>> config = tr.preset("glyphs-1shot-5way").replace(outer_steps=2, meta_batch=2, monitor_episodes=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = tr.train(config, folder, callbacks=[tr.ProgressBar(Console(quiet=True))])
    """

    def __init__(self, console: Console | None = None, hints: bool = False) -> None:
        """Show nothing yet.

        Args:
            console: where lines go; by default standard error.
            hints: name the commands that can follow when the training ends.
        """
        self._console, self._hints = console or StandardError(), hints
        self._line = _LiveLine(self._console, "training")
        self._accuracy = ""
        self._first: tuple[int, float, float] | None = None  # step, share done and seconds of the first step seen
        self._total = ""
        self._start = 0  # the outer step that the session began at

    def on_warning(self, message: str) -> None:
        """Print the warning on a separate line."""
        self._console.print(f"warning: {message}", highlight=False, soft_wrap=True, markup=False)

    def on_start(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Print the run folder and the execution, and open the live line."""
        limit = config.outer.max_minutes
        self._total = f"in {limit:g} min" if limit else f"of {config.outer.outer_steps:,}"
        self._accuracy, self._first, self._start = "", None, step
        resumed = f", resuming at outer step {step:,}" if step else ""
        self._console.print(f"run folder {folder}{resumed}", highlight=False, soft_wrap=True, markup=False)
        self._console.print(
            f"execution {execution.name}: {execution.reason}", highlight=False, soft_wrap=True, markup=False
        )
        self._line.start()

    def on_step(self, step: int, done: float, seconds: float) -> None:
        """Move the live line; elsewhere, print a line now and then."""
        if self._first is None:  # the first step compiles and warms up; the pace is that of the steps after it
            self._first = (step, done, seconds)
        elif self._line.due():
            first_step, first_done, first_seconds = self._first
            numbers = self._numbers(step, step - first_step, done, done - first_done, seconds - first_seconds)
            self._line.show(done, 1.0, numbers, numbers)

    def _numbers(self, step: int, steps: int, done: float, share: float, seconds: float) -> str:
        """``steps`` and ``share`` of the training took ``seconds``."""
        left = duration(seconds * (1 - done) / share) if share > 0 else "?"
        return f"step {step:,} {self._total}  {self._accuracy}{1000 * seconds / steps:.1f} ms/step  {left} left"

    def on_evaluation(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        """Print a line that stays."""
        name = "val" if "val" in measured else "train"
        result = measured[name]
        self._accuracy = f"loss {loss:.3f}  {name} {result.short()}  "
        of = "tasks" if isinstance(result, Fit) else "classes"
        self._console.print(
            f"step {step:>7,}  loss {loss:.3f}  {name} {of}: {result}",
            highlight=False,
            soft_wrap=True,
        )

    def on_end(self, folder: Path, step: int, interrupted: bool) -> None:
        """Close the live line and print what can be done next."""
        self._line.stop()
        name = shlex.quote(str(folder))
        if not self._hints:
            line = f"{'stopped at' if interrupted else 'finished after'} {step:,} outer steps"
        elif interrupted:
            line = f"stopped at outer step {step:,}, saved; resume with: reptile train --resume {name}"
        elif step == self._start:
            line = (
                f"{step:,} outer steps are done, all of this run; to train it further: reptile train --weights {name} "
                "with the same PRESET and settings, and --out NEW"
            )
        else:
            line = f"finished after {step:,} outer steps; next: reptile evaluate {name}, reptile report {name}"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def on_exception(self, error: BaseException) -> None:
        """Close the live line."""
        self._line.stop()


@final
class CountBar:
    """A progress bar over things that are counted, such as episodes; used as a context manager."""

    def __init__(self, console: Console, what: str, of: str) -> None:
        """Prepare a bar.

        Args:
            console: where it is shown.
            what: what is done, such as "evaluating".
            of: what is counted, such as "episodes".
        """
        self._line, self._what, self._of = _LiveLine(console, what), what, of
        self._start = time.monotonic()

    def __enter__(self) -> Self:
        """Start to show."""
        self._line.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Clear the bar."""
        self._line.stop()

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are finished; cheap enough to be called thousands of times a second."""
        if self._line.due():
            left = duration((time.monotonic() - self._start) * (total - done) / done)
            plain = f"{self._what}: {done:,} of {total:,} {self._of}  {left} left"
            self._line.show(done, total, f"{done:,}/{total:,}  {left} left", plain)


@final
class ManyBar:
    """A progress bar over parallel trainings: how many have finished, and the time left for all."""

    def __init__(self, console: Console, works: Sequence[float], shown: bool = True) -> None:
        """Prepare a bar, shown while it is used as a context manager.

        Args:
            console: where it is shown.
            works: the amount of work in each, in any common unit.
            shown: False if the trainings show their own progress; warnings and ends are printed regardless.
        """
        self._console, self._line, self._live = console, _LiveLine(console, ""), shown and bool(works)
        self._works, self._done = works, [0.0] * len(works)
        self._before: dict[int, float] = {}  # the share of each done in earlier sessions
        self._over = 0
        self._start = time.monotonic()
        self._warned: set[str] = set()

    def __enter__(self) -> ManyBar:
        """Start to show."""
        if self._live:
            self._line.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Clear the bar."""
        self._line.stop()

    def update(self, number: int, share: float) -> None:
        """Show that a share of training ``number`` is finished, from 0 to 1."""
        self._before.setdefault(number, share)
        self._done[number] = share
        self._show()

    def warn(self, message: str) -> None:
        """Print a warning on a separate line; once, even if several trainings give it."""
        if message not in self._warned:
            self._warned.add(message)
            self._console.print(f"warning: {message}", highlight=False, soft_wrap=True, markup=False)

    def finish(self, number: int, what: str) -> None:
        """Print a permanent line for training ``number``, which has finished."""
        self._done[number], self._over = 1.0, self._over + 1
        self._console.print(
            f"{self._over} of {len(self._works)}  {what}", highlight=False, soft_wrap=True, markup=False
        )
        self._show()

    def _show(self) -> None:
        total, now = sum(self._works), time.monotonic()
        work = sum(share * its for share, its in zip(self._done, self._works, strict=True))
        here = work - sum(share * self._works[number] for number, share in self._before.items())  # in this session
        left = duration((now - self._start) * (total - work) / here) if here > 0 else "?"
        numbers = f"{self._over} of {len(self._works)} done  {100 * work / total:.1f}%  {left} left"
        if self._live:
            self._line.show(work, total, numbers, numbers)
