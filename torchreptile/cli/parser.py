"""Parsing of the command line into a command."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import tyro
from tyro.conf import CascadeSubcommandArgs, FlagCreatePairsOff, OmitArgPrefixes, subcommand

from torchreptile.cli.flags.adapt import Adapt
from torchreptile.cli.flags.bench import Bench
from torchreptile.cli.flags.compare import Compare
from torchreptile.cli.flags.data import Data
from torchreptile.cli.flags.demo import Demo
from torchreptile.cli.flags.evaluate import Evaluate
from torchreptile.cli.flags.export import Export
from torchreptile.cli.flags.presets import Presets
from torchreptile.cli.flags.report import Report
from torchreptile.cli.flags.reproduce import Reproduce
from torchreptile.cli.flags.train import Train
from torchreptile.cli.original_flags import ORIGINAL_DEFAULTS, translate, was_pasted
from torchreptile.cli.usage_errors import one_line_refusals
from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import algorithm_row, owner_of
from torchreptile.core.config.presets import PRESETS, TABLE, for_algorithm, preset
from torchreptile.core.errors import ConfigError

Command = Train | Evaluate | Adapt | Export | Compare | Reproduce | Report | Bench | Demo | Data | Presets


def parse(arguments: Sequence[str]) -> Command:
    """The command that ``arguments`` (without the program's name) ask for.

    Raises:
        ConfigError: they make none.
    """
    words, pasted = list(arguments), False
    if words[:1] == ["train"]:
        pasted = was_pasted(words)
        words = translate(words)
        if len(named := list(dict.fromkeys(_values_of("--algorithm", words)))) > 1:
            raise ConfigError(f"algorithm is {' and '.join(named)}; name one (--foml is --algorithm foml)")
    # A preset's settings, for an algorithm, are the defaults of the other flags: known before the flags are read.
    guess = next((word for word in words if word in PRESETS), "")
    algorithm = _value_of("--algorithm", words) or "reptile"
    if words[:1] == ["train"]:
        _refuse_settings_of_others(words, algorithm)
    command = _parse(words, guess, algorithm, pasted)
    if isinstance(command, Train) and command.preset != guess:
        command = _parse(words, command.preset, algorithm, pasted)
    return command


def _value_of(flag: str, words: Sequence[str]) -> str:
    """Return the last value given to ``flag``; empty if there is none."""
    return (_values_of(flag, words) or [""])[-1]


def _values_of(flag: str, words: Sequence[str]) -> list[str]:
    """Return all values given to ``flag``, as ``--flag=value`` or as ``--flag value``."""
    values = [word.removeprefix(f"{flag}=") for word in words if word.startswith(f"{flag}=")]
    return values + [value for word, value in pairwise(words) if word == flag]


def _refuse_settings_of_others(words: Sequence[str], algorithm: str) -> None:
    """Name the algorithm that a setting belongs to, where it is not the one asked for.

    Raises:
        ConfigError: it belongs to another.
    """
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        owner = owner_of(name) if word.startswith("--") else ""
        if owner and not hasattr(algorithm_row(algorithm).settings(algorithm=algorithm), name):
            value = value or next(iter(words[place + 1 :]), "")
            raise ConfigError(f"{name} is {value}, but algorithm is {algorithm}; it is for {owner}")


def _parse(words: list[str], preset_name: str, algorithm: str, pasted: bool) -> Command:
    start = Train(config=for_algorithm(algorithm, preset(preset_name) if preset_name else _plain(words, pasted)))
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
    )
    with one_line_refusals():
        command: Command = tyro.cli(
            kinds,
            prog="reptile",
            description="Few-shot meta-learning: the Reptile paper's experiments, and your own.",
            args=words,
            config=(OmitArgPrefixes, CascadeSubcommandArgs, FlagCreatePairsOff),
        )
    return command


def _plain(words: list[str], pasted: bool) -> Config:
    """The settings that count where no preset is named."""
    if _value_of("--table", words):
        return TABLE
    dataset = _value_of("--dataset", words)
    if dataset in PRESETS:  # functions, whose only preset has their name
        return preset(dataset)
    return ORIGINAL_DEFAULTS if pasted else Config()
