"""A contestant in a process of its own: it waits for a line on standard input, works, and answers with a line.

    told              answers                 meaning
                      ready                   built and warmed up
    step 5            time 0.0421             five outer steps took so many seconds, to the end of the last
    check             losses [[[1.6, ...      those of the case's outer steps, (outer steps, inner steps, tasks)
    (end of input)                            goes away

Whatever goes wrong ends the process with its traceback on standard error. Waiting is a blocking read, so that
who is not at work does not disturb who is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from work import NETWORKS, PROTOCOLS, Case, Network
from work import Protocol as Rules

WARM_UP = 3


class Contestant(Protocol):
    """What a ``with_*.py`` offers."""

    def step(self, count: int) -> None:
        """Do so many outer steps, drawing of tasks included, and return when they are done."""

    def check(self, case: Case) -> np.ndarray:
        """Losses of outer steps on the case's images from the weights it was built with, by the code of ``step``."""


Build = Callable[[str, Network, Rules, Case, int], Contestant]
"""(variant, network, rules, start, threads) -> contestant."""


def serve(build: Build) -> None:
    """Build the contestant that the command line names and do what standard input says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("rules", choices=PROTOCOLS)
    parser.add_argument("case", help="file of the start")
    parser.add_argument("threads", type=int)
    parser.add_argument("--no-warm-up", action="store_true", help="be ready at once: for checks")
    told = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    case = Case.load(told.case)
    contestant = build(told.variant, NETWORKS[told.network], PROTOCOLS[told.rules], case, told.threads)
    if not told.no_warm_up:
        contestant.step(WARM_UP)
    print("ready", file=answers)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "step":
            start = time.perf_counter()
            contestant.step(int(rest[0]))
            print("time", time.perf_counter() - start, file=answers)
        elif word == "check":
            print("losses", json.dumps(contestant.check(case).tolist()), file=answers)
        else:
            raise ValueError(f"told {line!r}; it must be step N or check")
