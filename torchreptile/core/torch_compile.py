"""torch.compile as this package uses it: compiled for each shape, without hints the user cannot act on."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

RECOMPILE_LIMIT = 128  # four blocks times precisions times batch sizes, each compiled for its own shape
# The first is about a precision that the settings chose, the second about internals of the compiler (torch 2.11).
HINTS = ("TensorFloat32 tensor cores", r"\s*Online softmax is disabled")

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` compiled, with room for all the shapes that the networks have."""
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, RECOMPILE_LIMIT)
    return torch.compile(function, dynamic=False)


def quietly(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` without the compiler's hints on a GPU, which appear at the first call of each shape."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        with warnings.catch_warnings():
            for hint in HINTS:
                warnings.filterwarnings("ignore", hint, UserWarning)
            return function(*args, **kwargs)

    return called
