"""The original code's flags and defaults, so that published commands work unchanged."""

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
    # The original loss has one value per image, and TensorFlow differentiates their sum.
    "--sgd": ("--inner-loss", "sum", "--inner-optimizer", "sgd"),
    "--foml": ("--algorithm", "foml"),
}

# The original code's defaults; published commands rely on some of them (such as --shots 5).
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

# Flags that are also common in commands with our own flags; alone they do not mark a command as the original's.
_SHARED = {"--sgd", "--foml", "--checkpoint"}


def _dashed(flag: str) -> str:
    """Replace underscores by dashes, as argparse accepts both."""
    return flag.replace("_", "-")


def translate(arguments: Sequence[str]) -> list[str]:
    """Translate the original code's flags into ours.

    Example:
        >>> translate(["--classes=5", "--foml"])
        ['--way=5', '--algorithm', 'foml']
    """
    translated: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        ours = ORIGINAL_FLAGS.get(_dashed(name), (name,))
        translated += [*ours[:-1], ours[-1] + equals + value]
    return translated


def was_pasted(arguments: Sequence[str]) -> bool:
    """Return whether ``arguments`` are a command of the original code.

    Example:
        >>> was_pasted(["--meta-iters", "100000"]), was_pasted(["--outer-steps", "100000"])
        (True, False)
    """
    return any(_dashed(word.partition("=")[0]) in set(ORIGINAL_FLAGS) - _SHARED for word in arguments)
