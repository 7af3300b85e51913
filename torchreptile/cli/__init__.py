"""The command line ``reptile``.

Each command's flags are a dataclass in :mod:`torchreptile.cli.flags`, whose docstrings are the help texts; its
implementation is in :mod:`torchreptile.cli.commands`, imported only when the command runs, so that ``--help`` does not
wait for torch.
"""

from torchreptile.cli.main import main as main
from torchreptile.cli.parser import Command as Command, parse as parse
