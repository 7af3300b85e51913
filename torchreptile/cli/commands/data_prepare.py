"""``reptile data prepare``: check a data set, store it ready for training, and report its content and problems."""

from __future__ import annotations

import hashlib
import time
from itertools import combinations

from torchreptile.cli.commands.console import show_lines
from torchreptile.core.config import Resize
from torchreptile.core.distributed.signals import stop_on_signals
from torchreptile.core.errors import DataError
from torchreptile.core.files import write_text
from torchreptile.core.paths import cache_dir
from torchreptile.data.image_store import ImageStore
from torchreptile.data.mini_imagenet.dataset import BrokenError, Loader, root, sources
from torchreptile.data.splits import MissingSplit
from torchreptile.training.progress_bars import CountBar, StandardError

SHOWN = 50  # problems printed; all of them are written to a file


def prepare(data_root: str, resize: Resize) -> int:
    """Prepare every available split of mini-ImageNet and print its content; return the exit code.

    Ctrl-C, SIGTERM and SIGHUP end it at once, and nothing half written stays.

    Raises:
        StopRequestedError: a signal asked it to stop.
        DataError: pictures are broken; all problems have been reported by then.
    """
    folder = root(data_root)
    stores: dict[str, ImageStore] = {}
    problems: list[str] = []
    for split, source in sources(folder).items():
        if isinstance(source, MissingSplit):
            show_lines(f"{split}: skipped: {source.reason}")
            continue
        loader = Loader(folder, split, source, resize)
        try:
            with stop_on_signals() as stop, stop.at_once():
                stores[split] = _prepared(loader)
        except BrokenError as error:
            problems += error.problems
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(_report_problems(problems, str(folder)))
    for line in _duplicates(stores):
        show_lines(line)
    return 0


def _prepared(loader: Loader) -> ImageStore:
    """Prepare one split with a progress bar, and print its content."""
    start, file = time.monotonic(), loader.file
    before = file.stat().st_mtime_ns if file.is_file() else None
    with CountBar(StandardError(), f"decoding {loader.split}", "images") as bar:
        store = loader(bar.update)
    seconds, count = time.monotonic() - start, len(store.images)
    made = file.stat().st_mtime_ns != before
    how = f"{count / seconds:,.0f} pictures/s" if made else "already prepared"
    special = "".join(f"; {number:,} {what}" for what, number in loader.notes().items())
    show_lines(
        f"{loader.split}: {len(store):,} classes, {count:,} pictures from {loader.source.where}{special}; "
        f"in {file} ({seconds:.1f} s, {how})"
    )
    return store


def _report_problems(problems: list[str], where: str) -> str:
    """Print the first problems to standard error and write all to a file; return a summary."""
    for problem in problems[:SHOWN]:
        show_lines(problem, to_stderr=True)
    file = cache_dir() / "mini-imagenet-problems.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, "".join(f"{problem}\n" for problem in problems))
        listed = f"all are in {file}"
    except OSError as error:
        listed = f"they could not be written to {file} ({error.strerror})"
    shown = f"the first {SHOWN} are above, " if len(problems) > SHOWN else ""
    plural = "problem" if len(problems) == 1 else "problems"
    return f"mini-imagenet in {where}: {len(problems):,} {plural}; {shown}{listed}"


def _duplicates(stores: dict[str, ImageStore]) -> list[str]:
    """Return a line per pair of identical pictures, pairs across two splits first, and a line that counts them."""
    places: dict[bytes, list[tuple[str, str, int]]] = {}
    for split, store in stores.items():
        names = [
            (name, row)
            for name, size in zip(store.class_names, store.class_sizes.tolist(), strict=True)
            for row in range(size)
        ]
        for image, (name, row) in zip(store.images.numpy(), names, strict=True):
            places.setdefault(hashlib.sha256(image.tobytes()).digest(), []).append((split, name, row))
    pairs = [pair for same in places.values() for pair in combinations(same, 2)]
    pairs.sort(key=lambda pair: pair[0][0] == pair[1][0])
    across = sum(one[0] != other[0] for one, other in pairs)
    lines = [f"identical pictures: {_place_name(one)} and {_place_name(other)}" for one, other in pairs]
    return [*lines, f"{len(pairs)} pairs of identical pictures, {across} of them across two splits"]


def _place_name(place: tuple[str, str, int]) -> str:
    """Name a picture by split, class and number."""
    split, name, row = place
    return f"{split}/{name} number {row}"
