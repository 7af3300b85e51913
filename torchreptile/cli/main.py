"""The entry point of ``reptile``, and its exit codes."""

from __future__ import annotations

import os
import sys

from torchreptile.cli.parser import parse
from torchreptile.core.distributed.launcher import let_idle_threads_sleep
from torchreptile.core.errors import TorchReptileError
from torchreptile.core.version import __version__


def main() -> None:
    """Run the command line; exit with 0 for success, 2 for an invalid request, 130 if stopped by a signal."""
    if sys.argv[1:] == ["--version"]:
        print(f"torchreptile {__version__}")
        return
    let_idle_threads_sleep()
    try:
        code = parse(sys.argv[1:]).run()
    except TorchReptileError as error:
        code = _refused(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # the reader, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (OSError, MemoryError) as error:  # such as a full disk: the system's own message says it all
        code = _refused(str(error) or type(error).__name__)
    except RuntimeError as error:
        if "allocate" not in str(error) and "out of memory" not in str(error):
            raise
        code = _refused("not enough memory for these settings; try fewer tasks, smaller batches or fewer steps")
    sys.exit(code)


def _refused(reason: str) -> int:
    """Print an error on one line; return the exit code."""
    print(f"reptile: {' '.join(reason.split())}", file=sys.stderr)
    return 2
