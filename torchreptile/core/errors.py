"""The exceptions this library raises on purpose.

Every message is one line that names the thing, the value found and what would work; the command line
prints it and exits with code 2.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where it has no message.

    >>> first_line(RuntimeError("out of memory\\nat line 3"))
    'out of memory'
    >>> first_line(EOFError())
    'EOFError'
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


class TorchReptileError(Exception):
    """Base class of every exception that the library raises on purpose."""


class ConfigError(TorchReptileError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(TorchReptileError):
    """A data set that is missing, incomplete, damaged or too small for the requested task."""


class RunError(TorchReptileError):
    """A run folder, checkpoint or weights file that is missing, damaged, in use or not this library's."""


class LostProcessError(RunError):
    """The loss of another process of a distributed training; the run can be resumed."""


class DivergedError(TorchReptileError):
    """Adaptation, or a network, that ended in numbers that are not finite, so that there is no answer."""


class NotFittedError(TorchReptileError, ValueError, AttributeError):
    """A prediction asked of a classifier or regressor before ``fit``; has the base classes of scikit-learn's error."""
