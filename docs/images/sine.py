"""Makes sine.png: the error of new sine waves by inner step, after several trainings (see regression.md).

python docs/images/sine.py Reptile=runs/sine "joint training=runs/joint" MAML=runs/maml
"""

import sys
from pathlib import Path

from torchreptile.data.sines import sines
from torchreptile.fitting import fit_functions
from torchreptile.learned import load_learned
from torchreptile.reports.functions import draw_by_step

WAVES = 2000

named = dict(argument.split("=", 1) for argument in sys.argv[1:])
fitted = {name: fit_functions(load_learned(run), sines("sine"), WAVES) for name, run in named.items()}
(Path(__file__).parent / "sine.png").write_bytes(draw_by_step(fitted))
for name, its in fitted.items():
    print(name, *(f"{step}: {its.by_step[step]}" for step in (0, 1, 5, 10, 32)), sep="  ")
