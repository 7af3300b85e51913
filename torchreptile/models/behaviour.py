"""How a network behaves, found by trying it: whether it draws random numbers, writes into its input, and more.

Nothing is concluded from the classes of its layers: ``F.dropout``, the dropout of an LSTM, DropPath or a layer of the
user's own draw just as ``nn.Dropout`` does, and a network may normalise by its batch in its own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchreptile.core.random_state import RandomState, seeded
from torchreptile.models.built_in import BuiltInNetwork, Params, Shape
from torchreptile.models.module_call import ModuleCall, as_real, params_of, predicting

IMAGES = 3  # of a trial
SHAKEN = 0.05  # added to the parameters, because layers that begin at zero hide what comes before them
ROUNDING = 1e-4  # outputs closer than this, relative to the largest, are equal
READ = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)  # give Python a number


@dataclass(frozen=True)
class Behaviour:
    """What trying a network has shown.

    Attributes:
        draws: it draws random numbers in training (Dropout, DropPath).
        draws_outside: it draws them from Python's or NumPy's generator.
        draws_predicting: it draws them in predictions too.
        changes_input: it writes into its input.
        channels_last: it works on images and kernels with their channels last in memory, with the same outputs.
        independent_outputs: in predictions, the output for an image is independent of the others of its batch.
    """

    draws: bool = False
    draws_outside: bool = False
    draws_predicting: bool = False
    changes_input: bool = False
    channels_last: bool = True
    independent_outputs: bool = False


def behaviour_of(module: nn.Module, image_shape: Shape) -> Behaviour:
    """Return how ``module`` behaves, found by calling it on a few random images; it is not changed.

    A network that fails on them gets the default behaviour; whoever runs it will see it fail.

    Args:
        module: the network, in training mode.
        image_shape: (C, H, W) of images, or (inputs,) of points.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Dropout(), nn.Linear(4, 2))
        >>> found = behaviour_of(network, (1, 3, 3))
        >>> found.draws, found.draws_predicting, found.independent_outputs
        (True, False, True)
    """
    if isinstance(module, BuiltInNetwork):
        return Behaviour(independent_outputs=module.independent_outputs)
    trial = Trial(module, image_shape)
    try:
        return trial.behaviour()
    except Exception:  # a custom network may raise anything
        return Behaviour()


class Trial:
    """A network, random images, and calls of it that always begin with the same random numbers."""

    def __init__(self, module: nn.Module, image_shape: Shape, shaken: float = SHAKEN) -> None:
        """Prepare parameters and images.

        Args:
            module: the network.
            image_shape: (C, H, W) of images, or (inputs,) of points.
            shaken: the size of the noise that is added to the parameters.
        """
        self.module, own = module, params_of(module)
        generator = torch.Generator().manual_seed(0)
        self.params = {
            name: p + shaken * torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
            for name, p in own.items()
        }
        self.device = next(iter(own.values())).device
        # Pairs, to see whether the others of a batch matter.
        self.images, self.others = (
            torch.rand(IMAGES, *image_shape, generator=generator).to(self.device) for _ in range(2)
        )

    def behaviour(self) -> Behaviour:
        """Return what the calls show.

        Raises:
            Exception: whatever the network raises on contiguous images.
        """
        before = RandomState.now(self.device)
        with before.restored(self.device):
            given = self.images.clone()
            expected = ModuleCall(self.module, channels_last=False)(self.params, given)
            draws, outside = before.moved_since(self.device)
        changes_input = not torch.equal(given, self.images)
        with before.restored(self.device), torch.no_grad(), predicting(self.module):
            self.call(False, True)(self.params, self.images)
            draws_predicting = any(before.moved_since(self.device))
        found = Behaviour(draws or outside, outside, draws_predicting, changes_input)
        return replace(
            found,
            channels_last=self._takes_channels_last(expected, changes_input),
            independent_outputs=not draws_predicting and self._independent(changes_input),
        )

    def call(self, channels_last: bool, changes_input: bool) -> ModuleCall:
        """Return a call of the network; see :class:`ModuleCall`."""
        return ModuleCall(self.module, channels_last, changes_input)

    def repeatable(self) -> bool:
        """Whether the same images, parameters and seed give the same outputs again, after others in between.

        Raises:
            Exception: whatever the network raises.
        """
        call = self.call(False, True)
        outputs = []
        for x in (self.images, self.others, self.images):
            with seeded(0, self.device), torch.no_grad():
                outputs.append(call(self.params, x))
        return equal_outputs(outputs[0], outputs[2])

    def called_as_given(self) -> bool:
        """Whether calling the module with given parameters gives the gradient that it has with them as its own.

        It does not where weights are stored in a second place, or layers are computed again in the backward pass.

        Raises:
            Exception: whatever the network raises.
        """
        leaves = {name: p.detach().requires_grad_() for name, p in self.params.items()}
        with seeded(0, self.device), torch.enable_grad():
            out = self.call(False, True)(leaves, self.images)
            given = torch.autograd.grad(out.square().sum(), list(leaves.values()), materialize_grads=True)
        named = dict(self.module.named_parameters())
        before = {name: p.data for name, p in named.items()}
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        trained = [p for p in named.values() if p.requires_grad]
        try:
            for name, p in named.items():
                p.data = (
                    torch.view_as_complex(self.params[name].clone()) if p.is_complex() else self.params[name].clone()
                )
            with seeded(0, self.device), torch.enable_grad():
                total = self.module(self.images.clone()).square().sum()
                own = torch.autograd.grad(total, trained, materialize_grads=True)
        finally:
            for name, p in named.items():
                p.data = before[name]
            for name, buffer in self.module.named_buffers():
                buffer.data = buffers[name]
        pairs = dict(zip([name for name, p in named.items() if p.requires_grad], own, strict=True))
        largest = max(float(g.abs().nan_to_num().max()) for g in own)
        return all(
            torch.allclose(g, as_real(pairs[name]), rtol=0, atol=10 * ROUNDING * largest, equal_nan=True)
            for name, g in zip(leaves, given, strict=True)
            if name in pairs
        )

    def _takes_channels_last(self, expected: Tensor, changes_input: bool) -> bool:
        """Whether the network works on images and kernels in that order, with the outputs ``expected``."""
        if self.images.ndim != 4 and not any(p.ndim == 4 for p in self.params.values()):
            return True
        params = {name: _last(p).requires_grad_() for name, p in self.params.items()}
        try:
            with seeded(0, self.device), torch.enable_grad():
                again = self.call(False, changes_input)(self.params, self.images)
            with seeded(0, self.device), torch.enable_grad():
                out = self.call(True, changes_input)(params, self.images)
                torch.autograd.grad(out.sum(), list(params.values()), materialize_grads=True)
        except Exception:  # such as view() on maps that are not contiguous
            return False
        assert expected.shape == out.shape
        return equal_outputs(again, out)

    def _independent(self, changes_input: bool) -> bool:
        """Whether each output in predictions stays the same in other company, and alone.

        A network that reads a number of its tensors in Python may decide by it, so it counts as dependent.
        """
        call = self.call(False, changes_input)

        def first(*batch: Tensor) -> Tensor:
            with torch.no_grad(), predicting(self.module):
                return call(self.params, torch.stack(batch))[0]

        a, b, c = self.images
        d, e, f = self.others
        company = [(d, e), (0.02 * d, 0.02 * e), (1 - 0.02 * d, 1 - 0.02 * e), (f, 0.5 * d)]
        try:
            with NumbersRead() as numbers:
                expected = [first(image, b, c) for image in (a, 0.1 * d)]
            if numbers.read:
                return False
            return all(
                equal_outputs(out, first(image))
                and all(equal_outputs(out, first(image, *others)) for others in company)
                for image, out in zip((a, 0.1 * d), expected, strict=True)
            )
        except Exception:  # a network that cannot take one image depends on its batch
            return False


class NumbersRead(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether a number of a tensor is read in Python, as by ``float`` or ``if``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.read = self.read or func in READ
        return func(*args, **(kwargs or {}))


def changed_parameters(module: nn.Module, image_shape: Shape) -> list[str]:
    """Return the names of the parameters that the network writes into when it is called.

    Args:
        module: the network.
        image_shape: (C, H, W) of images, or (inputs,) of points.

    Raises:
        Exception: whatever the network raises.
    """
    trial = Trial(module, image_shape, shaken=0.0)
    before: Params = {name: p.clone() for name, p in trial.params.items()}
    with seeded(0, trial.device), torch.no_grad():
        trial.call(False, True)(trial.params, trial.images)
    return [name for name, p in trial.params.items() if not bool(_unchanged(p, before[name]).all())]


def _unchanged(p: Tensor, before: Tensor) -> Tensor:
    """Return which numbers are as before; NaN is as NaN, so that weights that diverged are not called written to."""
    return (p == before) | (p.isnan() & before.isnan())


def equal_outputs(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs are equal up to rounding; NaN equals NaN."""
    scale = float(a.detach().nan_to_num(0, 0, 0).abs().max()) if a.numel() else 0.0
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=ROUNDING * scale, equal_nan=True)


def _last(p: Tensor) -> Tensor:
    """Return a copy of a parameter, kernels with their channels last in memory."""
    return p.detach().clone(memory_format=torch.channels_last if p.ndim == 4 else torch.contiguous_format)
