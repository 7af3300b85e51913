"""The original code's flags and defaults, so that the published commands can be pasted."""

from __future__ import annotations

from collections.abc import Sequence

from torchreptile.core.config import Config

ORIGINAL_FLAGS: dict[str, tuple[str, ...]] = {
    "--classes": ("--way",),
    "--learning-rate": ("--inner-lr",),
    "--inner-iters": ("--inner-steps",),
    "--meta-step": ("--outer-step-size",),
    "--meta-step-final": ("--outer-step-size-final",),
    "--meta-batch-size": ("--meta-batch",),
    "--meta-iters": ("--outer-steps",),
    "--eval-iters": ("--eval-steps",),
    "--eval-samples": ("--eval-episodes",),
    "--eval-interval": ("--monitor-every",),
    "--checkpoint": ("--out",),
    # Its loss is one per image, and TensorFlow goes down the sum of such, as Adam here always does.
    "--sgd": ("--inner-loss", "sum", "--inner-optimizer", "sgd"),
    "--foml": ("--algorithm", "foml"),
}

# What the original code assumes where its command does not say; published commands rely on some of it (--shots 5).
ORIGINAL_DEFAULTS = Config().replace(
    shots=5,
    train_shots=0,
    inner_batch=5,
    inner_steps=20,
    outer_steps=400_000,
    meta_batch=1,
    outer_step_size=0.1,
    outer_step_size_final=0.1,
)

# Switches that people also add to our own commands do not make one of the original's.
_CONVENIENT = {"--sgd", "--foml", "--checkpoint"}


def _dashed(flag: str) -> str:
    """The original code's flags with dashes, as argparse lets people write them with underscores."""
    return flag.replace("_", "-")


def translate(arguments: Sequence[str]) -> list[str]:
    """Write the original code's flags as ours; ``--name=value`` keeps its value."""
    translated: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        ours = ORIGINAL_FLAGS.get(_dashed(name), (name,))
        translated += [*ours[:-1], ours[-1] + equals + value]
    return translated


def was_pasted(arguments: Sequence[str]) -> bool:
    """Whether ``arguments`` are a command of the original code."""
    return any(_dashed(word.partition("=")[0]) in set(ORIGINAL_FLAGS) - _CONVENIENT for word in arguments)
