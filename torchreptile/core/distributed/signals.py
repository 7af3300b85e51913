"""Ctrl-C, SIGTERM and SIGHUP as a request to stop at the next safe point."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 130  # exit code of a command that a signal stopped

ORDERS = (signal.SIGINT, signal.SIGTERM)
HANGUPS = (signal.SIGHUP,) if os.name == "posix" else ()


class StopRequestedError(KeyboardInterrupt):
    """A request to stop that interrupts work at once, because nothing of that work has to be saved."""


class StopRequests:
    """Whether a stop was requested, and whether a request interrupts what is being computed."""

    def __init__(self) -> None:
        """Begin without a request."""
        self._asked, self._at_once = False, False

    def __call__(self) -> bool:
        """Return whether a stop was requested."""
        return self._asked

    @contextmanager
    def at_once(self, allowed: bool = True) -> Iterator[None]:
        """Let a request interrupt the work inside by :class:`StopRequestedError`.

        Args:
            allowed: False leaves it at a request.

        Raises:
            StopRequestedError: a stop is requested inside, or was before.
        """
        self._at_once = allowed
        try:
            if allowed and self._asked:
                raise StopRequestedError
            yield
        finally:
            self._at_once = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; the second one interrupts, whatever is being computed."""
        again, self._asked = self._asked, True
        if not again and self._at_once:
            raise StopRequestedError
        # A terminal that closes may send SIGHUP twice: once from the shell, once from the system.
        if again and number not in HANGUPS:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[StopRequests]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a request to stop at the next safe point; a second one interrupts at once.

    A SIGHUP that is ignored, as under nohup, stays ignored. In other threads than the main one, where Python accepts
    no signal handlers, nothing changes.

    Yields:
        An object that returns, when called, whether a stop was requested.
    """
    requests = StopRequests()
    before = {}
    try:
        for number in (*ORDERS, *HANGUPS):
            if number in ORDERS or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, requests.receive)
    except ValueError:  # not the main thread
        before = {}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_end_this_process() -> Iterator[None]:
    """Let Ctrl-C end this process at once while it is inside a library that waits and does not return to Python.

    SIGTERM and SIGHUP do so by themselves, outside :func:`stop_on_signals`.
    """
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
