"""The command ``reptile``: one module per command, a dataclass whose field docstrings are the help.

torch and everything that needs it are imported inside ``run``, so that ``--help`` answers at once; what the commands
do is in :mod:`torchreptile.cli.commands`.
"""

from torchreptile.cli.main import main as main
from torchreptile.cli.parser import Command as Command, parse as parse
