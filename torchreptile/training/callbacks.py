"""Callbacks: objects that follow a training and may act on its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import final

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, TorchReptileError, first_line
from torchreptile.core.streams import say
from torchreptile.models.execution.execution import Execution
from torchreptile.training.evaluation.results import Measured

Metrics = dict[str, float | int | str]
"""One line of metrics.jsonl: values by name, among them ``step`` and ``loss``."""


class Callback:
    """Base class of callbacks; override the events you need, every other one does nothing.

    Under torchrun, callbacks are called in the first process alone. An exception that a callback raises ends the
    training and reaches the caller of ``train`` with its own traceback; the run can be resumed from its last
    checkpoint. See docs/callbacks.md.

    Example:
        >>> class PrintLoss(Callback):
        ...     def on_evaluation(self, step, loss, measured):
        ...         print(f"step {step}: loss {loss:.2f}")
        >>> PrintLoss().on_evaluation(100, 1.5, {})
        step 100: loss 1.50
    """

    def on_warning(self, message: str) -> None:
        """Handle a warning about the data, or about how a run is resumed; raised before ``on_start``."""

    def on_start(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Handle the start of a training session.

        Args:
            folder: the run folder.
            config: all settings.
            step: outer steps done before; more than 0 for a resumed run.
            execution: how tasks are computed, and why so.
        """

    def on_step(self, step: int, done: float, seconds: float) -> None:
        """Handle the end of an outer step.

        Args:
            step: outer steps done, counted from the start of the run.
            done: the share of the training that is over, from 0 to 1.
            seconds: of training in this session.
        """

    def on_evaluation(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        """Handle a measurement on meta-training and meta-validation classes.

        Args:
            step: outer steps done.
            loss: mean training loss since the previous measurement.
            measured: accuracies, or errors of functions, by split: "train" and "val".
        """

    def on_metrics(self, metrics: Metrics) -> None:
        """Handle a line of metrics.jsonl, written after every measurement: ``step``, ``loss``, ``outer_step_size``,
        ``seconds``, and each measure with its interval, such as ``val_inductive`` and ``val_inductive_ci95``."""

    def on_checkpoint(self, path: Path, step: int) -> None:
        """Handle a checkpoint that is complete on disk: ``last.pt``, or ``best.pt`` after a new best score."""

    def on_end(self, folder: Path, step: int, interrupted: bool) -> None:
        """Handle the end of a training session.

        Args:
            folder: the run folder.
            step: outer steps done.
            interrupted: True if a signal, or a ``break`` in the loop, ended it early; the run can be resumed.
        """

    def on_exception(self, error: BaseException) -> None:
        """Handle an exception that ends the training; it is raised again afterwards."""


class OutputCallback(Callback):
    """Base class of callbacks that only show or log: one that fails is dropped, and the training continues.

    The failure is reported once: to the other callbacks as a warning, or on standard error where none of them handles
    warnings. What the library refuses on purpose, such as a log that cannot be opened, is raised.
    """


@final
class Callbacks(Callback):
    """Several callbacks as one: passes every event to each of them, in order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        """Check that all are callbacks.

        Raises:
            ConfigError: something else is among them.
        """
        if isinstance(callbacks, Callback):
            raise ConfigError(f"callbacks is a {type(callbacks).__name__}; it must be a list, such as [callback]")
        self._callbacks = list(callbacks)
        for callback in self._callbacks:
            if not isinstance(callback, Callback):
                raise ConfigError(f"callbacks has {callback!r}; each must be an instance of a subclass of Callback")

    def _each(self, event: Callable[[Callback], None]) -> None:
        for callback in tuple(self._callbacks):
            try:
                event(callback)
            except TorchReptileError:
                raise
            except (Exception, SystemExit) as error:
                if not isinstance(callback, OutputCallback) or not _is_failure(error):
                    raise
                self._callbacks.remove(callback)
                self._report(callback, error)

    def _report(self, callback: Callback, error: BaseException) -> None:
        """Report once, wherever possible, that a callback failed and was dropped."""
        reason = first_line(error.__context__ or error) if isinstance(error, SystemExit) else first_line(error)
        message = f"{type(callback).__name__} failed and is left out from here on ({reason}); the training continues"
        if any(type(other).on_warning is not Callback.on_warning for other in self._callbacks):
            self.on_warning(message)
        else:
            say(f"warning: {message}")

    def on_warning(self, message: str) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_warning(message))

    def on_start(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_start(folder, config, step, execution))

    def on_step(self, step: int, done: float, seconds: float) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_step(step, done, seconds))

    def on_evaluation(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_evaluation(step, loss, measured))

    def on_metrics(self, metrics: Metrics) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_metrics(metrics))

    def on_checkpoint(self, path: Path, step: int) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_checkpoint(path, step))

    def on_end(self, folder: Path, step: int, interrupted: bool) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_end(folder, step, interrupted))

    def on_exception(self, error: BaseException) -> None:
        """Pass the event on."""
        self._each(lambda callback: callback.on_exception(error))


def _is_failure(error: BaseException) -> bool:
    """Whether an exception is a failure, not a wish to exit; rich turns a broken pipe into a SystemExit."""
    return not isinstance(error, SystemExit) or isinstance(error.__context__, BrokenPipeError)
