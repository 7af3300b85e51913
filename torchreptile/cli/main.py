"""The entry point of ``reptile``, its exit codes, and how what nobody foresaw is reported."""

from __future__ import annotations

import os
import sys

from torchreptile.core.errors import LostProcessError, TorchReptileError, first_line
from torchreptile.core.streams import discard, prepare_streams, say
from torchreptile.core.version import __version__

UNFORESEEN = 70  # exit code of an error that the library does not raise on purpose (EX_SOFTWARE of sysexits.h)
TRACEBACK = "TORCHREPTILE_TRACEBACK"  # environment variable, which --traceback sets: it reaches other processes too
NO_MEMORY = ("allocate", "out of memory", "failed to map segment", "can't start new thread", "bad_alloc")


def main() -> None:
    """Run the command line and exit.

    Exit codes are 0 for success, 2 for an invalid request, 3 if another process of the run was lost, 70 for an error
    that is a fault of this library or of code of the user's, and 130 if a signal stopped it. Each but 0 comes with one
    line on standard error; ``--traceback``, anywhere, or TORCHREPTILE_TRACEBACK=1 prints the traceback before it.
    """
    try:
        prepare_streams()
        _take_traceback_flag()
        if sys.argv[1:] == ["--version"]:
            print(f"torchreptile {__version__}")
            return
        code = _run(sys.argv[1:])
    except KeyboardInterrupt as error:
        code = _refused(error, "stopped", 130)
    except BrokenPipeError:  # the reader, such as `head`, has exited
        code = 0
    except TorchReptileError as error:
        code = _refused(error, str(error), 3 if isinstance(error, LostProcessError) else 2)
    except Exception as error:
        code = _unforeseen(error)
    sys.exit(_printed(code))


def _take_traceback_flag() -> None:
    """Remove ``--traceback`` from the command line, and pass it on in the environment."""
    if "--traceback" in sys.argv[1:]:
        sys.argv[1:] = [word for word in sys.argv[1:] if word != "--traceback"]
        os.environ[TRACEBACK] = "1"


def _run(words: list[str]) -> int:
    """Run a command; return its exit code. What takes long to import is imported here, where Ctrl-C is handled."""
    from torchreptile.core.distributed.launcher import let_idle_threads_sleep, stop_with_launcher

    let_idle_threads_sleep()
    stop_with_launcher()
    from torchreptile.cli.parser import parse

    return parse(words).run()


def _unforeseen(error: Exception) -> int:
    """Report an error that the library did not raise on purpose; return the exit code."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return _refused(error, "not enough memory for these settings; try fewer tasks, smaller batches or fewer steps")
    if isinstance(error, OSError):  # such as a full disk: the system's own message says it all
        return _refused(error, str(error) or type(error).__name__)
    command = f"{sys.argv[1]}: " if sys.argv[1:2] and not sys.argv[1].startswith("-") else ""
    where = "the traceback is above" if _wants_traceback() else "--traceback shows where"
    line = first_line(error)
    what = type(error).__name__ + (f": {line}" if line != type(error).__name__ else "")
    reason = (
        f"{command}unforeseen error, {what[:300]}; {where}; unless it is in your own code, please report it with the "
        f"command and the output of --version"
    )
    return _refused(error, reason, UNFORESEEN)


def _wants_traceback() -> bool:
    """Return whether tracebacks are asked for."""
    return os.environ.get(TRACEBACK, "") not in ("", "0")


def _printed(code: int) -> int:
    """Hand what was printed to the system; return the exit code, 2 instead of 0 if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if code == 0 and not isinstance(error, BrokenPipeError):
            return _refused(error, f"standard output cannot be written ({error.strerror})")
    return code


def _refused(error: BaseException, reason: str, code: int = 2) -> int:
    """Print an error on one line, after its traceback if that is asked for; return the exit code."""
    if _wants_traceback():
        import traceback

        say("".join(traceback.format_exception(error)).rstrip())
    say(f"reptile: {' '.join(reason.split())}")
    return code
