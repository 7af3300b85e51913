"""Parsing of the command line into a command."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import tyro
from tyro.conf import CascadeSubcommandArgs, FlagCreatePairsOff, OmitArgPrefixes, subcommand

from torchreptile.cli.flags.adapt import Adapt
from torchreptile.cli.flags.bench import Bench
from torchreptile.cli.flags.compare import Compare
from torchreptile.cli.flags.completion import Completion
from torchreptile.cli.flags.data import Data
from torchreptile.cli.flags.demo import Demo
from torchreptile.cli.flags.evaluate import Evaluate
from torchreptile.cli.flags.export import Export
from torchreptile.cli.flags.presets import Presets
from torchreptile.cli.flags.report import Report
from torchreptile.cli.flags.reproduce import Reproduce
from torchreptile.cli.flags.train import Train
from torchreptile.cli.original_flags import ORIGINAL_DEFAULTS, translate, was_pasted
from torchreptile.cli.short_help import ALL, short_help
from torchreptile.cli.usage_errors import one_line_refusals
from torchreptile.core.config import DATA, Config
from torchreptile.core.config.algorithm_table import algorithm_row, owner_of
from torchreptile.core.config.presets import PRESETS, TABLE, for_algorithm, preset
from torchreptile.core.config.validation import require_countable
from torchreptile.core.errors import ConfigError
from torchreptile.core.user_code import names_a_file

LONGEST_NUMBER = 1000  # digits that the parser is given

Command = Train | Evaluate | Adapt | Export | Compare | Reproduce | Report | Bench | Demo | Data | Presets | Completion


def parse(arguments: Sequence[str]) -> Command:
    """Parse a command line.

    Args:
        arguments: the words after the program's name.

    Raises:
        ConfigError: the command line is invalid; the message is one line.

    Example:
        >>> command = parse(["evaluate", "omniglot-5way", "--shots", "5"])
        >>> command.shots, command.split
        (5, 'test')
    """
    _refuse_endless_numbers(arguments)
    words, pasted = _with_user_code(arguments), False
    if words[:1] == ["train"]:
        pasted = was_pasted(words)
        words = translate(words)
        if len(named := list(dict.fromkeys(_values_of("--algorithm", words)))) > 1:
            raise ConfigError(f"algorithm is {' and '.join(named)}; name one (--foml is --algorithm foml)")
    # The preset and the algorithm decide the defaults of the other flags, so they must be known before parsing.
    guess = next((word for word in words if word in PRESETS), "")
    algorithm = _value_of("--algorithm", words) or "reptile"
    if words[:1] == ["train"]:
        _refuse_settings_of_others(words, algorithm)
    command = _parse(words, guess, algorithm, pasted)
    if isinstance(command, Train) and command.preset != guess:
        command = _parse(words, command.preset, algorithm, pasted)
    _require_countable(command)
    return command


def _refuse_endless_numbers(words: Sequence[str]) -> None:
    """Refuse numbers of so many digits that Python does not read them: the parser would print all of them."""
    for word in words:
        digits = len(word.rpartition("=")[2].lstrip("+-")) if word[-1:].isdecimal() else 0
        if digits > LONGEST_NUMBER and word.rpartition("=")[2].lstrip("+-").isdecimal():
            raise ConfigError(f"{word[:20]}... is a number of {digits:,} digits; no setting is that large")


def _require_countable(settings: object) -> None:
    """Refuse whole numbers of a command that do not fit into 64 bits.

    Raises:
        ConfigError: there is one; the message names its flag.
    """
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _require_countable(value)
        else:
            require_countable(field.name, value)


def _with_user_code(arguments: Sequence[str]) -> list[str]:
    """Load the algorithms and data sets that ``--algorithm FILE.py:CLASS`` and ``--dataset FILE.py:FUNCTION`` name.

    A run that was trained with such code can be read only by a command that names the file again, because code named
    in a file of settings is never run. Commands other than a new training only load the code.

    Returns:
        The words, with registered names in place of the files.
    """
    words, place = list(arguments), 0
    if words[:1] == ["compare"]:
        return [_loaded("--algorithm", word) if names_a_file(word) else word for word in words]
    while place < len(words):
        flag, equals, value = words[place].partition("=")
        value = value if equals else next(iter(words[place + 1 : place + 2]), "")
        if flag not in ("--algorithm", "--dataset") or not names_a_file(value):
            place += 1
            continue
        name = _loaded(flag, value)
        chooses = words[:1] == ["train"] and "--resume" not in words
        words[place : place + (1 if equals else 2)] = [flag, name] if chooses else []
        place += 2 if chooses else 0
    return words


def _loaded(flag: str, named: str) -> str:
    """Load an algorithm or data set from a file; return the name it is registered under."""
    if flag == "--algorithm":
        from torchreptile.algorithms.custom import load_algorithm

        return load_algorithm(named)
    from torchreptile.data.custom import use_dataset_file

    return use_dataset_file(named)


def _value_of(flag: str, words: Sequence[str]) -> str:
    """Return the last value given to ``flag``; empty if there is none."""
    return (_values_of(flag, words) or [""])[-1]


def _values_of(flag: str, words: Sequence[str]) -> list[str]:
    """Return all values given to ``flag``, as ``--flag=value`` or as ``--flag value``."""
    values = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    return values + [value for word, value in pairwise(words) if word == flag]


def _refuse_settings_of_others(words: Sequence[str], algorithm: str) -> None:
    """Refuse settings of other algorithms than the requested one.

    Raises:
        ConfigError: a setting belongs to another algorithm; the message names it.
    """
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        owner = owner_of(name) if word.startswith("--") else ""
        if owner and not hasattr(algorithm_row(algorithm).settings(algorithm=algorithm), name):
            value = value or next(iter(words[place + 1 :]), "")
            raise ConfigError(f"{name} is {value}, but algorithm is {algorithm}; it is for {owner}")


def _parse(words: list[str], preset_name: str, algorithm: str, pasted: bool) -> Command:
    """Parse words whose defaults come from a preset and an algorithm."""
    config = for_algorithm(algorithm, preset(preset_name) if preset_name else _plain(words, pasted))
    named = {name: value for name in DATA if (value := _value_of(f"--{name}", words))}
    if any(value != getattr(config.task, name) for name, value in named.items()):
        config = config.replace(split_scheme="default")  # how the algorithm's own data set is divided
    start = Train(config=config)
    kinds = (
        Annotated[Train, subcommand("train", default=start)]
        | Annotated[Evaluate, subcommand("evaluate")]
        | Annotated[Adapt, subcommand("adapt")]
        | Annotated[Export, subcommand("export")]
        | Annotated[Compare, subcommand("compare")]
        | Annotated[Reproduce, subcommand("reproduce")]
        | Annotated[Report, subcommand("report")]
        | Annotated[Bench, subcommand("bench")]
        | Annotated[Demo, subcommand("demo")]
        | Annotated[Data, subcommand("data")]
        | Annotated[Presets, subcommand("presets")]
        | Annotated[Completion, subcommand("completion")]
    )
    typed = next((word for word in words[:1] if not word.startswith("-")), "")
    with one_line_refusals(typed), short_help(words):
        command: Command = tyro.cli(
            kinds,
            prog="reptile",
            description="Few-shot meta-learning: the Reptile paper's experiments, and your own.",
            args=["--help" if word == ALL and typed == "train" else word for word in words],
            config=(OmitArgPrefixes, CascadeSubcommandArgs, FlagCreatePairsOff),
        )
    return command


def _plain(words: list[str], pasted: bool) -> Config:
    """Return the default settings of a command that names no preset."""
    if _value_of("--table", words):
        return TABLE
    dataset = _value_of("--dataset", words)
    if dataset in PRESETS:  # regression: a data set whose only preset has its name
        return preset(dataset)
    return ORIGINAL_DEFAULTS if pasted else Config()
