"""The outer optimiser against torch.optim, and its bounds against their definitions."""

from __future__ import annotations

import pytest
import torch

from torchreptile.algorithms.optim.outer_optimizer import OuterState, outer_update
from torchreptile.core.config import Config

SHAPES = {"w": (3, 4), "b": (4,)}


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_equals_torch(name: str, kind: type[torch.optim.Optimizer]) -> None:
    """Five steps of changing size."""
    settings = Config().replace(outer_optimizer=name).outer
    params = drawn(0)
    theirs = [p.clone().requires_grad_() for p in params.values()]
    optimizer, state = kind(theirs, lr=0.1), OuterState.fresh(params, name)
    for step in range(5):
        gradient, size = drawn(1 + step), 0.1 / (1 + step)
        params, state = outer_update(settings, params, state, gradient, size)
        optimizer.param_groups[0]["lr"] = size
        for p, g in zip(theirs, gradient.values(), strict=True):
            p.grad = g
        optimizer.step()
    for p, expected in zip(params.values(), theirs, strict=True):
        torch.testing.assert_close(p, expected.detach(), rtol=0, atol=1e-12)


def test_what_comes_in_is_left_as_it_was() -> None:
    settings, params, gradient = Config().replace(outer_optimizer="adam").outer, drawn(0), drawn(1)
    state = OuterState.fresh(params, "adam")
    outer_update(settings, params, state, gradient, 0.1)
    assert all(torch.equal(p, drawn(0)[name]) for name, p in params.items())
    assert all(torch.equal(g, drawn(1)[name]) for name, g in gradient.items())
    assert all(float(v.abs().max()) == 0 for v in [*state.m.values(), *state.v.values()])
    assert float(state.steps) == 0


def moved_by(gradient: dict[str, torch.Tensor], **changes: object) -> dict[str, torch.Tensor]:
    """How far a step of size 1 goes."""
    params = {name: torch.zeros_like(g) for name, g in gradient.items()}
    settings = Config().replace(**changes).outer
    after, _ = outer_update(settings, params, OuterState.fresh(params, "sgd"), gradient, 1.0)
    return {name: -p for name, p in after.items()}


def test_each_number_is_bounded() -> None:
    clipped = moved_by(drawn(3), outer_clip=0.5)
    for name, g in drawn(3).items():
        assert torch.equal(clipped[name], g.clamp(-0.5, 0.5))
        assert float(g.abs().max()) > 0.5


def test_the_length_is_bounded_and_the_direction_kept() -> None:
    gradient = drawn(3)
    flat = torch.cat([g.flatten() for g in gradient.values()])
    clipped = torch.cat([g.flatten() for g in moved_by(gradient, outer_clip=0.25, outer_clip_by="norm").values()])
    assert float(clipped.norm()) == pytest.approx(0.25, rel=1e-5)
    torch.testing.assert_close(clipped / clipped.norm(), flat / flat.norm())
    untouched = moved_by(gradient, outer_clip=100.0, outer_clip_by="norm")
    for name, g in gradient.items():
        torch.testing.assert_close(untouched[name], g, rtol=1e-12, atol=0)
