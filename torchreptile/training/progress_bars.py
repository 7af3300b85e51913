"""What a person sees while the computer works: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from torchreptile.core.config import Config
from torchreptile.models.execution.execution import Execution
from torchreptile.training.evaluation.results import Fit, Measured

PLAIN_SECONDS = 60.0  # between plain lines, where no measurement makes one


def duration(seconds: float) -> str:
    """For people: ``1:02:03``, ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[numbers]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@final
class LiveLine:
    """Follows a training: step, loss, accuracy with its interval, ms per outer step, time left."""

    def __init__(self, console: Console, hints: bool = True) -> None:
        """Lines go to ``console``; ``hints``: say what can be done next."""
        self._console, self._bar, self._hints = console, _bar(console), hints
        self._task: TaskID | None = None
        self._accuracy = ""
        self._first: tuple[int, float, float] | None = None  # step, share done and seconds of the first step seen
        self._total, self._shown = "", 0.0

    def warned(self, message: str) -> None:
        """Print it in a line of its own."""
        self._console.print(f"warning: {message}", highlight=False, soft_wrap=True, markup=False)

    def started(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Say where the run is kept and how it is computed, and open the live line."""
        limit = config.outer.max_minutes
        self._total = f"in {limit:g} min" if limit else f"of {config.outer.outer_steps:,}"
        self._shown = time.monotonic()
        resumed = f", going on from outer step {step:,}" if step else ""
        self._console.print(f"run folder {folder}{resumed}", highlight=False, soft_wrap=True)
        self._console.print(f"execution {execution.name}: {execution.reason}", highlight=False, soft_wrap=True)
        self._bar.start()
        self._task = self._bar.add_task("training", total=1.0, numbers="")

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """Move the live line; off a terminal, print a line now and then."""
        if self._first is None:  # the first step compiles and warms up; the pace is that of the steps after it
            self._first = (step, done, seconds)
            return
        now = time.monotonic()
        interval = 0.25 if self._console.is_terminal else PLAIN_SECONDS
        if now - self._shown < interval:
            return
        self._shown = now
        first_step, first_done, first_seconds = self._first
        numbers = self._numbers(step, step - first_step, done, done - first_done, seconds - first_seconds)
        if self._console.is_terminal and self._task is not None:
            self._bar.update(self._task, completed=done, numbers=numbers)
        else:
            self._console.print(numbers, highlight=False, soft_wrap=True)

    def _numbers(self, step: int, steps: int, done: float, share: float, seconds: float) -> str:
        """``steps`` and ``share`` of the training took ``seconds``."""
        left = duration(seconds * (1 - done) / share) if share > 0 else "?"
        return f"step {step:,} {self._total}  {self._accuracy}{1000 * seconds / steps:.1f} ms/step  {left} left"

    def measured(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
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

    def finished(self, folder: Path, step: int, interrupted: bool) -> None:
        """Close the live line and say what can be done next."""
        self._bar.stop()
        if not self._hints:
            said = "stopped at" if interrupted else "finished after"
            self._console.print(f"{said} {step:,} outer steps", highlight=False, soft_wrap=True)
        elif interrupted:
            self._console.print(
                f"stopped at outer step {step:,}, saved; go on with: reptile train --resume {shlex.quote(str(folder))}",
                highlight=False,
                soft_wrap=True,
            )
        else:
            name = shlex.quote(str(folder))
            self._console.print(
                f"finished after {step:,} outer steps; next: reptile evaluate {name}, reptile report {name}",
                highlight=False,
                soft_wrap=True,
            )

    def failed(self) -> None:
        """Close the live line."""
        self._bar.stop()


@final
class EpisodeBar:
    """A progress bar over evaluation episodes; off a terminal, a line now and then."""

    def __init__(self, console: Console) -> None:
        """Shown on ``console`` while used as a context manager."""
        self._console, self._bar = console, _bar(console)
        self._task = self._bar.add_task("evaluating", numbers="")
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> EpisodeBar:
        """Start to show."""
        self._bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Clear the bar."""
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` episodes are measured."""
        now = time.monotonic()
        left = duration((now - self._start) * (total - done) / done)
        self._bar.update(self._task, total=total, completed=done, numbers=f"{done:,}/{total:,}  {left} left")
        if not self._console.is_terminal and now - self._shown >= PLAIN_SECONDS:
            self._shown = now
            self._console.print(f"{done:,} of {total:,} episodes  {left} left", highlight=False, soft_wrap=True)


@final
class PictureBar:
    """A progress bar over pictures; off a terminal, a line now and then."""

    def __init__(self, console: Console, what: str) -> None:
        """Shown on ``console``, with ``what`` beside it, while used as a context manager."""
        self._console, self._bar, self._what = console, _bar(console), what
        self._task = self._bar.add_task(what, numbers="")
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> PictureBar:
        """Start to show."""
        self._bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Clear the bar."""
        self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` pictures are decoded."""
        now = time.monotonic()
        if now - self._shown < (0.1 if self._console.is_terminal else PLAIN_SECONDS):
            return  # one of thousands a second
        self._shown = now
        left = duration((now - self._start) * (total - done) / done)
        numbers = f"{done:,}/{total:,}  {left} left"
        self._bar.update(self._task, total=total, completed=done, numbers=numbers)
        if not self._console.is_terminal:
            self._console.print(f"{self._what}: {done:,} of {total:,}  {left} left", highlight=False, soft_wrap=True)


@final
class ManyBar:
    """Follows trainings side by side: how many are over, and the time left for all."""

    def __init__(self, console: Console, works: Sequence[float], shown: bool = True) -> None:
        """Shown on ``console`` while used as a context manager.

        Args:
            console: where.
            works: how much there is to do in each, in a unit of their own.
            shown: False where they show by themselves how it goes; warnings and ends are printed all the same.
        """
        self._console, self._bar, self._live = console, _bar(console), shown and bool(works)
        self._works, self._done = works, [0.0] * len(works)
        self._before: dict[int, float] = {}  # the share of each that another session had done
        self._over = 0
        self._task = self._bar.add_task("", numbers="")
        self._start = self._shown = time.monotonic()
        self._warned: set[str] = set()

    def __enter__(self) -> ManyBar:
        """Start to show."""
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        """Clear the bar."""
        self._bar.stop()

    def told(self, number: int, share: float) -> None:
        """That share of a training is over, from 0 to 1."""
        self._before.setdefault(number, share)
        self._done[number] = share
        self._show()

    def warned(self, message: str) -> None:
        """Print it in a line of its own; once, however many trainings say it."""
        if message not in self._warned:
            self._warned.add(message)
            self._console.print(f"warning: {message}", highlight=False, soft_wrap=True, markup=False)

    def finished(self, number: int, what: str) -> None:
        """A training is over; print a line that stays."""
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
            self._bar.update(self._task, total=total, completed=work, numbers=numbers)
            if not self._console.is_terminal and now - self._shown >= PLAIN_SECONDS:
                self._shown = now
                self._console.print(numbers, highlight=False, soft_wrap=True)
