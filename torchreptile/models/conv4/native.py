"""T Conv4 networks in the package's own C++ code: losses, gradients and inner steps on a CPU.

A library's convolutions are made for one large network. Here a task is small enough for a core's cache and each thread
takes entire tasks. The images of a batch are interleaved in memory, so that a register tile holds one position of all
of them, and optimiser steps use gradients that are still in the cache. The code is in native_code/.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from torchreptile.core.errors import ConfigError
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.layers import BLOCKS
from torchreptile.models.conv4.native_library import native_library

if TYPE_CHECKING:
    from torchreptile.models.conv4.network import Conv4

Mode: TypeAlias = Literal["logits", "gradient", "sgd", "adam"]
MODES: tuple[Mode, ...] = ("logits", "gradient", "sgd", "adam")
DTYPES = (torch.float32, torch.float64)

KINDS = ("convs.{}.weight", "convs.{}.bias", "norms.{}.weight", "norms.{}.bias")
NAMES = [*(kind.format(block) for kind in KINDS for block in range(BLOCKS)), "head.weight", "head.bias"]
"""The names of the parameters, in the order of the compiled code."""

# From kernels (T, O, I, h, w) to their order in the compiled code's memory, (T, h, w, I, O), and back.
TO_TAPS, FROM_TAPS = (0, 3, 4, 2, 1), (0, 4, 3, 1, 2)


@dataclass(frozen=True)
class Rule:
    """The update rule of an inner step: w - lr * g for SGD, or Adam's with beta1 = 0.

    Attributes:
        optimizer: adam or sgd.
        lr: inner learning rate.
        beta2: decay of Adam's second moment.
        eps: added to the root of the second moment.
        correction: Adam's bias correction, the root of 1 - beta2^steps, which divides the root of the second moment.
    """

    optimizer: Literal["adam", "sgd"]
    lr: float
    beta2: float
    eps: float
    correction: float


class _Job(ctypes.Structure):
    """The argument of the compiled functions, ``struct Job`` in C++."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("mode", "tasks", "batch", "channels", "size")),
        *((name, ctypes.c_int64) for name in ("filters", "way", "stride", "threads")),
        *((name, ctypes.c_double) for name in ("lr", "beta2", "eps", "correction")),
        *((name, ctypes.c_void_p) for name in ("images", "labels", "losses", "logits")),
        *((name, ctypes.c_void_p * len(NAMES)) for name in ("params", "second", "gradient")),
    )


class NativeConv4:
    """Computes T copies of a Conv4 in C++, in float32 or float64, with as many threads as torch may use."""

    def __init__(self, net: Conv4) -> None:
        """Load the C++ library, compiling it on first use.

        Args:
            net: the architecture; its own weights are never used.

        Raises:
            NativeUnavailableError: the library cannot be compiled or loaded on this machine.
        """
        library = native_library()
        self._net, self._threads = net, 0
        self._functions = dict(zip(DTYPES, (library.native_conv4_float, library.native_conv4_double), strict=True))
        self._shapes = {name: p.shape for name, p in net.named_parameters()}

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Give this execution torch's threads while the context lasts, and leave torch with one.

        Torch's threads spin for milliseconds after each shared operation, and would occupy the processors that the
        threads of the next inner step need.
        """
        if self._threads:  # already claimed
            yield
            return
        self._threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(self._threads)
            self._threads = 0

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Return logits (T, B, way); with gradients enabled, by torch's grouped convolutions.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, C, H, W) images.
        """
        if torch.is_grad_enabled():
            return self._net.forward_grouped(params, x)
        _, logits, _ = self._run("logits", params, x)
        return logits

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Return each task's mean cross-entropy (T,), and its gradient; that of a convolution's bias is 0.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, C, H, W) images.
            y: (T, B) labels.

        Raises:
            ValueError: shapes, dtypes or devices do not fit.
            IndexError: a label is not one of the classes.
        """
        losses, _, gradient = self._run("gradient", params, x, y)
        return losses, gradient

    def step(self, params: Params, v: Params, x: Tensor, y: Tensor, rule: Rule) -> Tensor:
        """Take one inner step, and return each task's loss (T,) before it.

        Args:
            params: by name, (T, ...) each; changed in place.
            v: Adam's second moment, shaped like ``params`` and changed in place; ignored for SGD.
            x: (T, B, C, H, W) images.
            y: (T, B) labels.
            rule: how to move the weights.

        Raises:
            ValueError: shapes, dtypes or devices do not fit.
            IndexError: a label is not one of the classes.
        """
        losses, _, _ = self._run(rule.optimizer, params, x, y, v, rule)
        return losses

    def _run(
        self, mode: Mode, params: Params, x: Tensor, y: Tensor | None = None, v: Params | None = None,
        rule: Rule | None = None,
    ) -> tuple[Tensor, Tensor, Params]:  # fmt: skip
        """Call the library, and return losses (T,), logits (T, B, way) and gradient, of which ``mode`` fills some."""
        dtype, (tasks, batch) = params[NAMES[0]].dtype, x.shape[:2]
        moments = v if mode == "adam" else None
        self._check(params, x, y, moments)
        way, filters = self._shapes["head.weight"][0], self._shapes["convs.0.bias"][0]
        images, weights = x.to(dtype).contiguous(), _Tensors(params)
        labels = None if y is None else y.long().contiguous()
        second = None if moments is None else _Tensors(moments)
        gradient = {name: torch.empty_like(p) for name, p in weights.laid.items()} if mode == "gradient" else {}
        losses, logits = x.new_empty(tasks, dtype=dtype), x.new_empty(tasks, batch, way, dtype=dtype)
        job = _Job(
            MODES.index(mode), tasks, batch, x.shape[2], x.shape[3], filters, way, self._net.stride,
            self._threads or torch.get_num_threads(),
        )  # fmt: skip
        if rule is not None:
            job.lr, job.beta2, job.eps, job.correction = rule.lr, rule.beta2, rule.eps, rule.correction
        job.images, job.losses, job.logits = images.data_ptr(), losses.data_ptr(), logits.data_ptr()
        job.labels = None if labels is None else labels.data_ptr()
        job.params = weights.pointers()
        if second is not None:
            job.second = second.pointers()
        if gradient:
            job.gradient = _pointers(gradient)
        _raise_for(self._functions[dtype](ctypes.byref(job)))
        if rule is not None:
            weights.write_back()
            if second is not None:
                second.write_back()
        return losses, logits, {name: _from_taps(g) for name, g in gradient.items()}

    def _check(self, params: Params, x: Tensor, y: Tensor | None, moments: Params | None) -> None:
        """Refuse tensors that do not fit, because the C++ code would read or write past their memory."""
        tasks, batch = x.shape[:2]
        dtype = params[NAMES[0]].dtype
        if dtype not in DTYPES:
            raise ValueError(f"parameters are {dtype}; native computes in float32 and float64")
        self._check_tensors("", params, tasks, dtype)
        if moments is not None:
            self._check_tensors("the second moment of ", moments, tasks, dtype)
        if any(t is not None and t.device.type != "cpu" for t in (x, y)):
            raise ValueError("native takes images and labels on the cpu")
        size, channels = x.shape[-1], self._shapes["convs.0.weight"][1]
        side = -(-size // 2**BLOCKS)
        fits = self._shapes["head.weight"][1] == self._shapes["convs.0.bias"][0] * side**2
        if x.ndim != 5 or x.shape[2:] != (channels, size, size) or not fits or batch < 1:
            raise ValueError(f"images are {tuple(x.shape)}, which does not fit this network")
        if y is not None and y.shape != (tasks, batch):
            raise ValueError(f"labels are {tuple(y.shape)}; they must be {(tasks, batch)}")

    def _check_tensors(self, of: str, tensors: Params, tasks: int, dtype: torch.dtype) -> None:
        """Refuse parameters, or moments of parameters, with a wrong dtype, shape or device."""
        for name, shape in self._shapes.items():
            p, wanted = tensors.get(name), (tasks, *shape)
            if p is None or p.dtype != dtype or p.shape != wanted or p.device.type != "cpu":
                found = "missing" if p is None else f"{p.dtype} {tuple(p.shape)} on {p.device}"
                raise ValueError(f"{of}{name} is {found}; it must be {dtype} {wanted} on cpu")


class _Tensors:
    """Parameters in the compiled code's memory order: themselves where they have it already, else copies."""

    def __init__(self, params: Params) -> None:
        """Lay out ``params``, copying where needed."""
        self._views = {name: _to_taps(params[name]) for name in NAMES}
        self.laid = {name: p.contiguous() for name, p in self._views.items()}

    def pointers(self) -> ctypes.Array[ctypes.c_void_p]:
        """Return their addresses, in the order of NAMES."""
        return _pointers(self.laid)

    def write_back(self) -> None:
        """Copy what was changed in the copies back to the originals."""
        for name, p in self._views.items():
            if self.laid[name] is not p:
                p.copy_(self.laid[name])


def _pointers(tensors: Params) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of the tensors, in the order of NAMES."""
    return (ctypes.c_void_p * len(NAMES))(*(tensors[name].data_ptr() for name in NAMES))


def _to_taps(p: Tensor) -> Tensor:
    """Return kernels with their axes in the compiled code's order; other tensors unchanged."""
    return p.permute(TO_TAPS) if p.ndim == 5 else p


def _from_taps(p: Tensor) -> Tensor:
    """Return kernels with their axes in PyTorch's order; other tensors unchanged."""
    return p.permute(FROM_TAPS) if p.ndim == 5 else p


def _raise_for(outcome: int) -> None:
    """Raise the error that the compiled code's return value stands for."""
    if outcome == 1:
        raise IndexError("a label is not one of the network's classes")
    if outcome == 2:
        raise torch.OutOfMemoryError("can't allocate memory for native execution")
    if outcome == 3:
        raise ConfigError("native execution could not start its threads; use fewer (OMP_NUM_THREADS=1)")
