"""Storm the program with damaged files, hostile files and kills, and count what comes of it (`make storm`).

    python tools/storm                                  # 2,000 damaged files, 100 hostile ones, 100 kills
    python tools/storm --mutations 60 --kills 0         # a short one
    python tools/storm --only last.pt --mutations 500   # one kind of file

A damaged file must give the same answer as the whole one, or one line and exit code 2. Another answer without a word
is counted as silent, an exception that nobody foresaw as a traceback, and more than ten seconds as a hang. A hostile
file must run no code and leave nothing. A killed command, given again, must end with the very bits of one that was
left alone. The same seed storms the same way. The exit code is 1 if anything else happened.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from command import Answer
from counts import Counts
from hostile import attack
from kills import kill_commands
from subjects import Subject, make


def main() -> None:
    """Parse the arguments, storm, print the counts, and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is random")
    parser.add_argument("--mutations", type=int, default=2000, help="damaged files")
    parser.add_argument("--hostile", type=int, default=100, help="hostile files")
    parser.add_argument("--kills", type=int, default=100, help="killed commands")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each kind of storm at most")
    parser.add_argument("--only", default="", help="kinds of file or command whose name contains this")
    options = parser.parse_args()
    started = time.monotonic()
    faults = 0
    with tempfile.TemporaryDirectory(prefix="storm-") as place:
        folder = Path(place)
        os.environ["TORCHREPTILE_CACHE"] = str(folder / "cache")
        storms = {"damaged files": damage, "hostile files": attack, "kills": kill_commands}
        for title, storm in storms.items():
            counts = Counts()
            storm(counts, folder, options, time.monotonic() + 60 * options.minutes)
            if counts.rows:
                print(f"\n{title}\n\n{counts.table()}\n", flush=True)
            for fault in counts.faults:
                print(fault[:600])
            faults += len(counts.faults)
    print(f"seed {options.seed}, {time.monotonic() - started:.0f} s, {faults} faults")
    sys.exit(1 if faults else 0)


def damage(counts: Counts, folder: Path, options: argparse.Namespace, until: float) -> None:
    """Damage every file that is read back, one at a time, and give it to what reads it."""
    if options.mutations == 0:
        return
    subjects = [subject for subject in make(folder) if options.only in subject.name]
    expected = {subject.name: subject.read() for subject in subjects}
    for name, answer in expected.items():
        if answer.code or answer.crash:
            raise RuntimeError(f"{name}: the whole file is not read: {answer.crash or answer.err}")
    for number in range(options.mutations):
        if not subjects or time.monotonic() > until:
            return
        subject = subjects[number % len(subjects)]
        storm_once(counts, subject, expected[subject.name], random.Random(f"{options.seed} {subject.name} {number}"))


def storm_once(counts: Counts, subject: Subject, expected: Answer, rng: random.Random) -> None:
    """Damage one file in one way, give it to what reads it, count the outcome, and mend the file."""
    content = subject.file.read_bytes()
    how = rng.choice(list(subject.mutations))
    damaged = subject.mutations[how](rng, content)
    folder = subject.file.parent
    before = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    subject.file.write_bytes(damaged)
    try:
        answer = subject.read()
    finally:
        for file in [file for file in folder.iterdir() if file.is_file() and file not in before]:
            file.unlink()
        for file, its in before.items():
            file.write_bytes(its)
    if answer.crash:
        counts.add(subject.name, "hangs" if answer.crash == "hang" else "tracebacks", f"{how}: {answer.crash}")
    elif answer.code == 2:
        counts.add(subject.name, "refused")
    elif answer.out == expected.out:
        counts.add(subject.name, "unchanged")
    else:
        place = next((n for n, (a, b) in enumerate(zip(answer.out, expected.out, strict=False)) if a != b), 0)
        around = slice(max(0, place - 60), place + 60)
        counts.add(subject.name, "silent", f"{how}: {answer.out[around]!r}, not {expected.out[around]!r}")


if __name__ == "__main__":
    main()
