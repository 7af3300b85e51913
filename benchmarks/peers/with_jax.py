"""Reptile in JAX as well as it can be written: one jitted function is a whole outer step, tasks drawn on the device.

A variant is three words, ``TASKS-CONVOLUTION-STEPS``:

    tasks         vmap (side by side), map (lax.map, one after another), loop (written out, one after another)
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
"""(B, H, W, C), kernel (h, w, C, O), stride -> (B, H', W', O), padded as 'SAME'."""


def conv(x: Array, kernel: Array, stride: int) -> Array:
    """XLA's own."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def patches(x: Array, kernel: Array, stride: int) -> Array:
    """As a matrix product."""
    before, after = same_padding(x.shape[1], stride)
    side = -(-x.shape[1] // stride)
    x = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    reach = stride * (side - 1) + 1
    taps = [x[:, i : i + reach : stride, j : j + reach : stride] for i in range(KERNEL) for j in range(KERNEL)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def logits(params: Params, x: Array, network: Network, convolve: Convolution) -> Array:
    """(B, H, W, C) -> (B, way)."""
    for block in range(BLOCKS):
        # The bias in front of BatchNorm is left out: it would be taken out again, and its gradient is 0.
        x = convolve(x, params[f"convs.{block}.weight"], network.stride)
        x = x - x.mean((0, 1, 2))
        x = x * lax.rsqrt((x * x).mean((0, 1, 2)) + BATCH_NORM_EPS)
        x = jax.nn.relu(x * params[f"norms.{block}.weight"] + params[f"norms.{block}.bias"])
        if network.stride == 1:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return x.reshape(len(x), -1) @ params["head.weight"] + params["head.bias"]


@dataclass(frozen=True)
class How:
    """What stays the same from step to step, and what the words of a variant mean.

    Attributes:
        network: the form of the network.
        convolve: one of the convolutions above.
        unroll: write the inner steps out.
        tasks: vmap, map or loop.
        eps: of Adam.
    """

    network: Network
    convolve: Convolution
    unroll: bool
    tasks: str
    eps: float


State = tuple[Params, Params, Array]
"""Weights, Adam's second moment, inner steps behind it."""


def train(how: How, state: State, images: Array, labels: Array) -> tuple[Params, Params, Array]:
    """One task: its weights and second moment after the inner steps, and the loss of each, (steps,).

    Args:
        how: what and how.
        state: where it starts.
        images: (steps, B, H, W, C) uint8.
        labels: (steps, B).
    """

    def loss(params: Params, x: Array, y: Array) -> Array:
        log_p = jax.nn.log_softmax(logits(params, x.astype(jnp.float32) / 255, how.network, how.convolve))
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def step(state: State, batch: tuple[Array, Array]) -> tuple[State, Array]:
        params, v, done = state
        value, g = jax.value_and_grad(loss)(params, *batch)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        correction = jnp.sqrt(-jnp.expm1((done + 1) * np.log(BETA2)))  # of beta1 = 0 there is none
        params = jax.tree.map(
            lambda p, g, v: p - INNER_LR * g / (jnp.sqrt(v) / correction + how.eps), params, g, v
        )  # fmt: skip
        return (params, v, done + 1), value

    (params, v, _), losses = lax.scan(step, state, (images, labels), unroll=INNER_STEPS if how.unroll else 1)
    return params, v, losses


def outer_step(how: How, state: State, images: Array, labels: Array) -> tuple[State, Array]:
    """The state afterwards, and the losses (steps, T).

    Args:
        how: what and how.
        state: before.
        images: (T, steps, B, H, W, C) uint8.
        labels: (T, steps, B).
    """
    one = partial(train, how, state)
    if how.tasks == "vmap":
        params, moments, losses = jax.vmap(one)(images, labels)
    elif how.tasks == "map":
        params, moments, losses = lax.map(lambda task: one(*task), (images, labels))
    else:
        learned = [one(x, y) for x, y in zip(images, labels, strict=True)]
        params, moments, losses = jax.tree.map(lambda *copies: jnp.stack(copies), *learned)
    phi, _, done = state
    phi = jax.tree.map(lambda p, copies: p + OUTER_STEP_SIZE * (copies.mean(0) - p), phi, params)
    v = jax.tree.map(lambda copies: copies.mean(0), moments)
    return (phi, v, done + INNER_STEPS), losses.T


def draw(key: Array, store: Array, shots: int) -> tuple[Array, Array]:
    """Mini-batches of fresh tasks: images (T, steps, B, H, W, C) uint8 and labels (T, steps, B)."""
    of_classes, of_images, of_order = jax.random.split(key, 3)
    _, classes = lax.top_k(jax.random.uniform(of_classes, (TASKS, CLASSES)), WAY)
    _, within = lax.top_k(jax.random.uniform(of_images, (TASKS, WAY, IMAGES_PER_CLASS)), shots)
    chosen = (classes[:, :, None] * IMAGES_PER_CLASS + within).reshape(TASKS, WAY * shots)
    order = jnp.argsort(jax.random.uniform(of_order, chosen.shape), axis=1)
    shape = (TASKS, INNER_STEPS, INNER_BATCH)
    images = store[jnp.take_along_axis(chosen, order, axis=1)]
    return images.reshape(*shape, *store.shape[1:]), (order // shots).reshape(shape)


class Jax:
    """Weights and optimiser state stay on the device; each step's buffers are given to the next."""

    def __init__(self, variant: str, network: Network, rules: Protocol, case: Case) -> None:
        tasks, convolution, steps = variant.split("-")
        convolve = {"conv": conv, "patches": patches}[convolution]
        learn = partial(outer_step, How(network, convolve, steps == "unrolled", tasks, case.eps))

        def whole(state: State, key: Array, store: Array) -> tuple[State, Array]:
            key, now = jax.random.split(key)
            return learn(state, *draw(now, store, rules.shots))[0], key

        self._learn, self._whole = jax.jit(learn), jax.jit(whole, donate_argnums=0)
        phi = _in_jax_order(case.weights, network)
        self._state: State = (phi, jax.tree.map(jnp.zeros_like, phi), jnp.zeros(()))
        self._key, self._store = jax.random.key(0), jnp.asarray(noise_store(network).transpose(0, 2, 3, 1))

    def step(self, count: int) -> None:
        """Steps follow each other without waiting for Python."""
        for _ in range(count):
            self._state, self._key = self._whole(self._state, self._key, self._store)
        jax.block_until_ready(self._state)

    def check(self, case: Case) -> np.ndarray:
        """The same, with the case's images in place of drawn ones."""
        losses = []
        for images, labels in zip(case.images, case.labels, strict=True):
            x, y = images.transpose(1, 0, 2, 4, 5, 3), labels.transpose(1, 0, 2)
            self._state, found = self._learn(self._state, x, y)
            losses.append(np.asarray(found))
        return np.stack(losses)


def _in_jax_order(weights: dict[str, np.ndarray], network: Network) -> Params:
    """Kernels as (h, w, I, O), the head as (rows, columns, channels) -> classes."""
    ours = dict(weights)
    for block in range(BLOCKS):
        ours[f"convs.{block}.weight"] = weights[f"convs.{block}.weight"].transpose(2, 3, 1, 0)
    side = network.sides[-1]
    head = weights["head.weight"].reshape(WAY, network.hidden, side, side)
    ours["head.weight"] = head.transpose(2, 3, 1, 0).reshape(-1, WAY)
    return {name: jnp.asarray(value) for name, value in ours.items()}


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """The contestant that the command line names; its threads are set by the environment and by the processor mask."""
    return Jax(variant, network, rules, case)


if __name__ == "__main__":
    serve(build)
