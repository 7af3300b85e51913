"""Reptile in idiomatic JAX: a single jitted function is an outer step, and tasks are drawn on the device.

A variant is three words, ``TASKS-CONVOLUTION-STEPS``:

    tasks         vmap (in parallel), map (lax.map, one after another), loop (unrolled, one after another)
    convolution   conv (lax.conv, NHWC), patches (nine shifted slices and a matrix product)
    steps         scan (lax.scan over inner steps), unrolled
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from work import (
    BATCH_NORM_EPS,
    BETA2,
    BLOCKS,
    CLASSES,
    IMAGES_PER_CLASS,
    INNER_BATCH,
    INNER_LR,
    INNER_STEPS,
    KERNEL,
    OUTER_STEP_SIZE,
    TASKS,
    WAY,
    Case,
    Network,
    Protocol,
    noise_store,
    same_padding,
)
from worker import Contestant, serve

Params = dict[str, Array]
Convolution = Callable[[Array, Array, int], Array]
"""(B, H, W, C), kernel (h, w, C, O), stride -> (B, H', W', O), with 'SAME' padding."""


def conv(x: Array, kernel: Array, stride: int) -> Array:
    """Convolve with XLA's convolution."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def patches(x: Array, kernel: Array, stride: int) -> Array:
    """Convolve with a matrix product over shifted slices."""
    before, after = same_padding(x.shape[1], stride)
    side = -(-x.shape[1] // stride)
    x = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    reach = stride * (side - 1) + 1
    taps = [x[:, i : i + reach : stride, j : j + reach : stride] for i in range(KERNEL) for j in range(KERNEL)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def logits(params: Params, x: Array, network: Network, convolve: Convolution) -> Array:
    """Compute logits: (B, H, W, C) -> (B, way)."""
    for block in range(BLOCKS):
        # A bias before BatchNorm is omitted: BatchNorm subtracts it, so its gradient is 0.
        x = convolve(x, params[f"convs.{block}.weight"], network.stride)
        x = x - x.mean((0, 1, 2))
        x = x * lax.rsqrt((x * x).mean((0, 1, 2)) + BATCH_NORM_EPS)
        x = jax.nn.relu(x * params[f"norms.{block}.weight"] + params[f"norms.{block}.bias"])
        if network.stride == 1:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return x.reshape(len(x), -1) @ params["head.weight"] + params["head.bias"]


@dataclass(frozen=True)
class Variant:
    """The constants of an outer step.

    Attributes:
        network: dimensions of the network.
        convolve: one of the convolutions above.
        unroll: unroll the inner steps.
        tasks: vmap, map or loop.
        eps: Adam's epsilon.
    """

    network: Network
    convolve: Convolution
    unroll: bool
    tasks: str
    eps: float


State = tuple[Params, Params, Array]
"""Weights, Adam's second moment, and the number of inner steps so far."""


def train(variant: Variant, state: State, images: Array, labels: Array) -> tuple[Params, Params, Array]:
    """Run the inner loop of one task.

    Args:
        variant: constants of the outer step.
        state: initial state.
        images: (steps, B, H, W, C) uint8.
        labels: (steps, B).

    Returns:
        Weights and second moment after the inner steps, and the losses (steps,).
    """

    def loss(params: Params, x: Array, y: Array) -> Array:
        log_p = jax.nn.log_softmax(logits(params, x.astype(jnp.float32) / 255, variant.network, variant.convolve))
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def step(state: State, batch: tuple[Array, Array]) -> tuple[State, Array]:
        params, v, done = state
        value, g = jax.value_and_grad(loss)(params, *batch)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        correction = jnp.sqrt(-jnp.expm1((done + 1) * np.log(BETA2)))  # none for beta1 = 0
        params = jax.tree.map(
            lambda p, g, v: p - INNER_LR * g / (jnp.sqrt(v) / correction + variant.eps), params, g, v
        )  # fmt: skip
        return (params, v, done + 1), value

    (params, v, _), losses = lax.scan(step, state, (images, labels), unroll=INNER_STEPS if variant.unroll else 1)
    return params, v, losses


def outer_step(variant: Variant, state: State, images: Array, labels: Array) -> tuple[State, Array]:
    """Run an outer step.

    Args:
        variant: constants of the outer step.
        state: initial state.
        images: (T, steps, B, H, W, C) uint8.
        labels: (T, steps, B).

    Returns:
        The new state, and the losses (steps, T).
    """
    one = partial(train, variant, state)
    if variant.tasks == "vmap":
        params, moments, losses = jax.vmap(one)(images, labels)
    elif variant.tasks == "map":
        params, moments, losses = lax.map(lambda task: one(*task), (images, labels))
    else:
        adapted = [one(x, y) for x, y in zip(images, labels, strict=True)]
        params, moments, losses = jax.tree.map(lambda *copies: jnp.stack(copies), *adapted)
    phi, _, done = state
    phi = jax.tree.map(lambda p, copies: p + OUTER_STEP_SIZE * (copies.mean(0) - p), phi, params)
    v = jax.tree.map(lambda copies: copies.mean(0), moments)
    return (phi, v, done + INNER_STEPS), losses.T


def draw(key: Array, store: Array, shots: int) -> tuple[Array, Array]:
    """Draw mini-batches of random tasks: images (T, steps, B, H, W, C) uint8 and labels (T, steps, B)."""
    of_classes, of_images, of_order = jax.random.split(key, 3)
    _, classes = lax.top_k(jax.random.uniform(of_classes, (TASKS, CLASSES)), WAY)
    _, within = lax.top_k(jax.random.uniform(of_images, (TASKS, WAY, IMAGES_PER_CLASS)), shots)
    chosen = (classes[:, :, None] * IMAGES_PER_CLASS + within).reshape(TASKS, WAY * shots)
    order = jnp.argsort(jax.random.uniform(of_order, chosen.shape), axis=1)
    shape = (TASKS, INNER_STEPS, INNER_BATCH)
    images = store[jnp.take_along_axis(chosen, order, axis=1)]
    return images.reshape(*shape, *store.shape[1:]), (order // shots).reshape(shape)


class Jax:
    """The contestant: weights and optimiser state stay on the device, and each step reuses the last one's buffers."""

    def __init__(self, variant: str, network: Network, rules: Protocol, case: Case) -> None:
        tasks, convolution, steps = variant.split("-")
        convolve = {"conv": conv, "patches": patches}[convolution]
        learn = partial(outer_step, Variant(network, convolve, steps == "unrolled", tasks, case.eps))

        def draw_and_learn(state: State, key: Array, store: Array) -> tuple[State, Array]:
            key, now = jax.random.split(key)
            return learn(state, *draw(now, store, rules.shots))[0], key

        self._learn, self._draw_and_learn = jax.jit(learn), jax.jit(draw_and_learn, donate_argnums=0)
        phi = _in_jax_order(case.weights, network)
        self._state: State = (phi, jax.tree.map(jnp.zeros_like, phi), jnp.zeros(()))
        self._key, self._store = jax.random.key(0), jnp.asarray(noise_store(network).transpose(0, 2, 3, 1))

    def step(self, count: int) -> None:
        """Run outer steps on random tasks, dispatched without waiting for each other's results."""
        for _ in range(count):
            self._state, self._key = self._draw_and_learn(self._state, self._key, self._store)
        jax.block_until_ready(self._state)

    def check(self, case: Case) -> np.ndarray:
        """Run outer steps on the case's images; return their losses (outer steps, inner steps, tasks)."""
        losses = []
        for images, labels in zip(case.images, case.labels, strict=True):
            x, y = images.transpose(1, 0, 2, 4, 5, 3), labels.transpose(1, 0, 2)
            self._state, found = self._learn(self._state, x, y)
            losses.append(np.asarray(found))
        return np.stack(losses)


def _in_jax_order(weights: dict[str, np.ndarray], network: Network) -> Params:
    """Convert weights to JAX's order: kernels (h, w, I, O), and a head over (rows, columns, channels)."""
    ours = dict(weights)
    for block in range(BLOCKS):
        ours[f"convs.{block}.weight"] = weights[f"convs.{block}.weight"].transpose(2, 3, 1, 0)
    side = network.sides[-1]
    head = weights["head.weight"].reshape(WAY, network.hidden, side, side)
    ours["head.weight"] = head.transpose(2, 3, 1, 0).reshape(-1, WAY)
    return {name: jnp.asarray(value) for name, value in ours.items()}


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """Return the contestant that the command line names; environment and processor mask limit its threads."""
    return Jax(variant, network, rules, case)


if __name__ == "__main__":
    serve(build)
