"""Every code block of the README and the documentation runs, and every command in running text parses.

The blocks of one page run in order, in one folder that holds the files that the page mentions. Trainings and
evaluations are cut to a few steps and episodes of easy images; everything else runs exactly as written.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.easy import REPOSITORY, easy_store, skip_without_native
from torchreptile.cli import Command, parse
from torchreptile.cli.flags.compare import Compare
from torchreptile.cli.flags.demo import Demo
from torchreptile.cli.flags.evaluate import Evaluate
from torchreptile.cli.flags.reproduce import Reproduce
from torchreptile.cli.flags.train import Train
from torchreptile.core.config import TaskConfig
from torchreptile.core.config.algorithm_table import BUILT_IN
from torchreptile.data import loading
from torchreptile.data.splits import Splits
from torchreptile.experiments.compare import plan
from torchreptile.experiments.reproduce import find_experiment

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(path for path in (REPOSITORY / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEREDOC = re.compile(r"^python - <<'END'\n(.*?)^END\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s:#]*)(?:#([^)\s]+))?\)")
SPAN = re.compile(r"`(reptile [a-z][^`]*)`")
# Words of a command that are subcommands.
NAMES = (
    "train",
    "evaluate",
    "adapt",
    "export",
    "compare",
    "report",
    "reproduce",
    "bench",
    "demo",
    "data",
    "show",
    "prepare",
    "presets",
    "completion",
)
# Placeholders in running text, and what to parse in their place.
STANDS_FOR = {
    "PRESET": "omniglot-1shot-5way", "RUN": "runs/o15", "NAME": "maml", "DIR": "folder", "FOLDER": "folder",
    "FILE": "file.csv", "N": "2", "CLASSIFIER": "greek.safetensors", "WEIGHTS": "omniglot-5way",
}  # fmt: skip


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def with_code(page: Path) -> bool:
    return any(is_code(language, content) for language, content in blocks(page))


def is_code(language: str, content: str) -> bool:
    return language in ("python", "sh") or content.startswith(("reptile ", "make ", "python ", "torchrun "))


@cache
def easy(shape: tuple[int, int, int]) -> Splits:
    """Enough classes for every setting, of images of that shape, or of the smallest that large ones' networks take."""
    channels, height, width = shape
    small = (channels, min(70, height), min(70, width))  # in sevens, of which the patterns are made
    return Splits(*(easy_store(classes, 20, seed, small) for seed, classes in enumerate((64, 20, 20))))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with the files that pages mention, and replace the published data sets with easy ones."""
    load = loading._load_splits  # what every caller of load_splits ends up in

    def splits(task: TaskConfig) -> Splits:
        return load(task) if task.data or task.custom or task.dataset == "glyphs" else easy(task.image_shape)

    monkeypatch.setattr(loading, "_load_splits", splits)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    rng = np.random.default_rng(0)
    names = ["alpha1.png", "beta1.png", "unknown.png", "query/alpha/2.png", "query/beta/2.png"]
    for name in [*names, "support/alpha/1.png", "support/beta/1.png"]:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 40), dtype=np.uint8)).save(name)
    shutil.copytree(REPOSITORY / "examples", "examples", ignore=shutil.ignore_patterns("__pycache__"))
    Path("plants").mkdir()
    for number in range(12):
        points = rng.uniform(0, 1, (30, 2))
        lines = [f"{a:.4f},{b:.4f},{a * number + b:.4f}" for a, b in points]
        Path("plants", f"plant{number:02d}.csv").write_text("\n".join(["dose,time,y", *lines]) + "\n")
        with Path("all.csv").open("a") as file:
            file.write("" if number else "task,dose,time,y\n")
            file.writelines(f"{number},{line}\n" for line in lines)
    return tmp_path


def shortened(command: Command) -> Command:
    """Return ``command`` with so few steps and episodes that it takes seconds."""
    if isinstance(command, Evaluate):
        return dataclasses.replace(command, episodes=4)
    if not isinstance(command, Train) or command.resume is not None:
        return command
    config = command.config
    config = config.replace(
        outer_steps=min(2, config.outer.outer_steps),
        max_minutes=0.0,
        meta_batch=min(2, config.outer.meta_batch),
        inner_steps=min(2, config.inner.inner_steps),
        eval_steps=min(2, config.evaluation.eval_steps),
        eval_episodes=4,
        queries=min(2, config.evaluation.queries),
        monitor_episodes=2,
        train_way=min(6, config.task.train_way),
        train_queries=min(2, config.task.train_queries),
    )
    if config.method.algorithm == "mann":
        config = config.replace(train_shots=2)
    return dataclasses.replace(command, config=config, workers=1)


# In blocks of Python, and what runs in their place; a training measures now and then, at least at its end.
SHORTER = {
    "max_minutes=1)": "max_minutes=0.02, monitor_episodes=2)",
    "outer_steps=20)": "outer_steps=20, monitor_episodes=2)",
    "outer_steps=3000)": "outer_steps=30, monitor_episodes=2)",
    "episodes=200": "episodes=4",
    "episodes=500": "episodes=4",
}


def run_python(content: str) -> None:
    """Execute a block of Python with as little work as possible."""
    for words, fewer in SHORTER.items():
        content = content.replace(words, fewer)
    exec(compile(content, "a block", "exec"), {"__name__": "__main__"})


def run_shell(content: str) -> None:
    """Run a block of shell commands, one per line."""
    for line in HEREDOC.sub("", content).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), line
        elif words[0] == "torchrun":
            assert isinstance(parse(words[words.index("torchreptile") + 1 :]), Train)
        else:
            assert words[0] == "reptile", f"{line}: not a command that this test can run"
            command = parse(words[1:])
            if isinstance(command, Compare):  # would take minutes; tests/experiments/test_compare.py runs it
                assert plan(command.preset, command.algorithms, command.seeds, command.episodes, {})
            elif isinstance(command, Reproduce) and not command.list:  # tests/experiments/reproduce runs it
                assert find_experiment(command.experiment).shortened(command.budget)
            elif not isinstance(command, Demo):  # it would serve until stopped
                assert shortened(command).run() == 0, line


@pytest.mark.parametrize("page", [page for page in PAGES if with_code(page)], ids=lambda page: page.name)
def test_every_block_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    if page.name == "README.md":
        skip_without_native()  # its training would take minutes
    for made in HEREDOC.finditer(page.read_text(encoding="utf-8")):  # files that other blocks of the page use
        run_python(made[1])
    for language, content in blocks(page):
        if language == "python":
            if named := re.match(r"# (\w+\.py)\n", content):
                (folder / named[1]).write_text(content)
            run_python(content)
        elif is_code(language, content):
            run_shell(content)


def spans() -> list[tuple[str, str]]:
    """Return (page, command) of each command in running text, cut at an ellipsis ("...") where it has one."""
    found = []
    for page in PAGES:
        if page.name == "bad-inputs.md":  # its commands are invalid on purpose
            continue
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        found += [(page.name, " ".join(span[1].split())) for span in SPAN.finditer(text)]
    return found


@pytest.mark.parametrize(("page", "command"), sorted(set(spans())))
def test_every_command_in_a_line_is_understood(page: str, command: str) -> None:
    words = shlex.split(command.split("...")[0])[1:]
    words = [STANDS_FOR.get(word, word) for word in words]
    if [word for word in words if word not in NAMES] == [] or words[-1].startswith("--help"):  # a command's name alone
        with pytest.raises(SystemExit) as ended:
            parse([word for word in words if word in NAMES] + ["--help"])
        assert ended.value.code == 0
        return
    parse(words)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings, as GitHub turns them into names, and explicit ids."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for name, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = page.parent / name if name else page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def test_every_algorithm_has_a_page_in_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for algorithm in BUILT_IN:
        assert f"| `{algorithm}` |" in readme


def test_every_file_that_the_architecture_names_is_there() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\b(\w+\.py)\b", page))
    there = {path.name for folder in ("torchreptile", "tests", "benchmarks", "tools") for path in
             (REPOSITORY / folder).glob("**/*.py") if ".venvs" not in path.parts}  # fmt: skip
    assert names <= there, names - there
