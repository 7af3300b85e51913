"""The entry point of ``reptile``, and its exit codes."""

from __future__ import annotations

import sys

from torchreptile.core.distributed.launcher import LOST, let_idle_threads_sleep, stop_with_launcher
from torchreptile.core.distributed.signals import STOPPED
from torchreptile.core.errors import LostProcessError, TorchReptileError
from torchreptile.core.streams import discard, open_closed_streams, say
from torchreptile.core.version import __version__


def main() -> None:
    """Run the command line and exit.

    Exit codes are 0 for success, 2 for an invalid request, 3 if another process of the run was lost, and 130 if a
    signal stopped it.
    """
    open_closed_streams()
    if sys.argv[1:] == ["--version"]:
        print(f"torchreptile {__version__}")
        return
    let_idle_threads_sleep()
    stop_with_launcher()
    try:
        from torchreptile.cli.parser import parse  # here, where Ctrl-C is handled: it takes a moment

        code = parse(sys.argv[1:]).run()
    except LostProcessError as error:
        code = _refused(str(error), LOST)
    except TorchReptileError as error:
        code = _refused(str(error))
    except KeyboardInterrupt:
        code = _refused("stopped", STOPPED)
    except BrokenPipeError:  # the reader, such as `head`, has exited
        code = 0
    except (OSError, MemoryError) as error:  # such as a full disk: the system's own message says it all
        code = _refused(str(error) or type(error).__name__)
    except RuntimeError as error:
        if "allocate" not in str(error) and "out of memory" not in str(error):
            raise
        code = _refused("not enough memory for these settings; try fewer tasks, smaller batches or fewer steps")
    sys.exit(_printed(code))


def _printed(code: int) -> int:
    """Hand what was printed to the system; return the exit code, 2 instead of 0 if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if code == 0 and not isinstance(error, BrokenPipeError):
            return _refused(f"standard output cannot be written ({error.strerror})")
    return code


def _refused(reason: str, code: int = 2) -> int:
    """Print an error on one line; return the exit code."""
    say(f"reptile: {' '.join(reason.split())}")
    return code
