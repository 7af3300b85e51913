"""Calling any ``nn.Module`` with given parameters, so that its answer depends on its arguments alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchreptile.core.random_state import seeded
from torchreptile.models.built_in import Params


def params_of(module: nn.Module) -> Params:
    """Return a module's parameters by name, as algorithms see them: copies, complex ones as pairs of real numbers.

    Args:
        module: its parameters have values (none is lazy any more).

    Example:
        >>> import torch
        >>> module = torch.nn.ParameterDict({"filter": torch.ones(3, 4, dtype=torch.complex64)})
        >>> params_of(module)["filter"].shape
        torch.Size([3, 4, 2])
    """
    return {name: as_real(p.detach()).clone() for name, p in module.named_parameters()}


class ModuleCall:
    """Calls a module with parameters of the caller's, and leaves neither the module nor the arguments changed.

    Every call starts from the module's buffers as they are, so what a call writes into them is seen by no other.
    Parameters with ``requires_grad=False`` get the gradient zero. Complex parameters are passed as pairs of real
    numbers, (..., 2).

    Attributes:
        module: the network; its own parameters are never used.
        channels_last: whether images are given to it with their channels last in memory, the fastest for convolutions.

    Example:
        >>> import torch
        >>> call = ModuleCall(torch.nn.Linear(2, 1))
        >>> call({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([[1.0, 2.0]]))
        tensor([[3.]])
    """

    def __init__(self, module: nn.Module, channels_last: bool = True, changes_input: bool = False) -> None:
        """Prepare to call ``module``.

        Args:
            module: the network.
            channels_last: the order of images in memory; False for a network that needs them contiguous (``view``).
            changes_input: the network writes into its input, so it is given a copy.
        """
        self.module, self.channels_last, self._changes_input = module, channels_last, changes_input
        named = list(module.named_parameters())
        self._frozen = {name for name, p in named if not p.requires_grad}
        self._complex = {name for name, p in named if p.is_complex()}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Return the outputs of the module.

        Args:
            params: by name, as :func:`params_of` gives them.
            x: (B, C, H, W) images, or (B, inputs) points.
        """
        if self._frozen or self._complex:
            params = {name: self._own_form(name, p) for name, p in params.items()}
        if buffers := {name: buffer.clone() for name, buffer in self.module.named_buffers()}:
            params = {**params, **buffers}
        out: Tensor = functional_call(self.module, params, (self._arranged(x),))
        return out

    def _own_form(self, name: str, p: Tensor) -> Tensor:
        """Return a parameter as the module has it: complex, and a constant if it is frozen."""
        p = torch.view_as_complex(p.contiguous()) if name in self._complex else p
        return p.detach() if name in self._frozen else p

    def _arranged(self, x: Tensor) -> Tensor:
        """Return the input in the order in memory that the module takes."""
        memory_format = torch.channels_last if self.channels_last and x.ndim == 4 else torch.contiguous_format
        if self._changes_input:
            return x.clone(memory_format=memory_format)
        return x.contiguous(memory_format=memory_format)


@contextmanager
def predicting(module: nn.Module, draws: bool = False) -> Iterator[None]:
    """Turn Dropout off while the context lasts; BatchNorm still uses the statistics of the batch.

    Args:
        module: the network.
        draws: it draws random numbers even so; they are then the same in every prediction.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a transformer's shortcut in eval mode, which vmap cannot batch
    module.eval()
    try:
        with seeded(0, next(module.parameters()).device) if draws else nullcontext():
            yield
    finally:
        module.train()
        torch.backends.mha.set_fastpath_enabled(fast_path)


def as_real(p: Tensor) -> Tensor:
    """Return complex numbers as pairs of real ones, and real ones as they are."""
    return torch.view_as_real(p) if p.is_complex() else p
