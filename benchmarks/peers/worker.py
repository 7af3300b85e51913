"""The process of a contestant: it reads a line from standard input, does the work, and answers with a line.

    input             answer                  meaning
                      ready                   built and warmed up
    step 5            time 0.0421             seconds of five outer steps, to the end of the last
    check             losses [[[1.6, ...      losses of the case's outer steps, (outer steps, inner steps, tasks)
    (end of input)                            exits

Any error ends the process with a traceback on standard error. Waiting is a blocking read, so that idle contestants do
not disturb the active one.
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
    """The interface of the contestants in ``with_*.py``."""

    def step(self, count: int) -> None:
        """Run outer steps, including the drawing of tasks, and return when they are finished."""

    def check(self, case: Case) -> np.ndarray:
        """Return the losses of outer steps on the case's images from the initial weights, computed as in ``step``."""


Build = Callable[[str, Network, Rules, Case, int], Contestant]
"""(variant, network, rules, start, threads) -> contestant."""


def serve(build: Build) -> None:
    """Build the contestant that the command line names, and serve requests from standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("rules", choices=PROTOCOLS)
    parser.add_argument("case", help="file with the case")
    parser.add_argument("threads", type=int)
    parser.add_argument("--no-warm-up", action="store_true", help="skip the warm-up, for checks")
    args = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not be mistaken for an answer
    case = Case.load(args.case)
    contestant = build(args.variant, NETWORKS[args.network], PROTOCOLS[args.rules], case, args.threads)
    if not args.no_warm_up:
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
            raise ValueError(f"input is {line!r}; it must be step N or check")
