"""Baseline and Baseline++ (Chen et al. 2019): the features of an ordinary classifier of all meta-training classes."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.algorithms.optim.inner_loop import shapes
from torchreptile.algorithms.rows.pretrained import PretrainedSettings
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.built_in import Params
from torchreptile.models.losses import task_losses

PREFIX = "classifier."  # of the names of the parameters of the classifier of meta-training classes
MOMENTUM, DAMPENING, WEIGHT_DECAY = 0.9, 0.9, 1e-3  # of SGD on a task's classifier
SCALE_FEW, SCALE_MANY, MANY = 2.0, 10.0, 200  # factors of cosines: up to 200 classes, and beyond


@final
class Pretrained(MetricBased):
    """A classifier of all meta-training classes, whose features serve every task: Baseline and Baseline++.

        meta-training:  loss = cross-entropy(W f(x) + b, class of x) over all meta-training classes
        in a task:      W_task, b_task <- SGD with momentum on the cross-entropy of the support set; f stays fixed

    A task's classifier is trained by ``eval_steps`` steps on ``eval_batch`` images. It is linear (Baseline), or uses
    scaled cosines with a trained length per class (Baseline++). Chen, Liu, Kira, Wang, Huang 2019, "A Closer Look at
    Few-shot Classification" (arXiv 1904.04232), section 3.2.
    """

    draws_minibatches = True

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Return a fresh classifier of all meta-training classes, drawn like PyTorch's linear layers."""
        classes = self.blueprint.classes
        like, bound = next(iter(network_params.values())), self.width**-0.5
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(classes, self.width).uniform_(-bound, bound, generator=generator).to(like)
        second = torch.zeros(classes).to(like)
        if self.config.own(PretrainedSettings).pretrained_head == "cosine":
            return {PREFIX + "direction": weight, PREFIX + "length": weight.norm(dim=1)}
        return {PREFIX + "weight": weight, PREFIX + "bias": second}

    def fits(self, params: Params) -> bool:
        """Whether ``params`` fit this algorithm; the number of meta-training classes may differ."""
        return _without_classifier(shapes(params)) == _without_classifier(self.shapes)

    def losses_and_averages(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Tensor, Params]:
        """Return the cross-entropy over all meta-training classes, (T,), and the batch statistics.

        A training task is simply a mini-batch of images here.

        Args:
            params: what is meta-learned, by name; leaves of the graph.
            episodes: T training tasks.
            drawn: not used.
        """
        embedded, statistics = self.training_embedder.by_batch(params, episodes.support_x)
        head = {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}
        return task_losses(classified(head, embedded), episodes.classes.gather(1, episodes.support_y)), statistics

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw the mini-batches of adaptation, as indices into the support sets: (T, eval_steps, B)."""
        settings = self.config.evaluation
        return minibatches(tasks, images, settings.eval_batch, settings.eval_steps, False, generator)

    def remember(self, params: Params, support: Tensor, classes: Tensor, drawn: Tensor) -> Params:
        """Return T classifiers by name, trained on the support sets' embeddings."""
        start = first_heads(support, classes, self.config.own(PretrainedSettings).pretrained_head)
        return trained(start, support, classes.argmax(2), drawn, self.config.inner.inner_lr)

    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """Label queries with the tasks' classifiers: (T, Q, E) -> logits (T, Q, way)."""
        return classified(remembered, query)


def classified(head: Params, x: Tensor) -> Tensor:
    """Return logits (T, B, classes) by one classifier for all tasks, or one per task.

    Args:
        head: ``weight`` (..., classes, E) and ``bias`` (..., classes) of a linear classifier; or ``direction``
            (..., classes, E) and ``length`` (..., classes) of a cosine classifier. Cosines are scaled, so that the
            softmax can come close to 1.
        x: (T, B, E) embeddings.
    """
    if "weight" in head:
        return x @ head["weight"].mT + head["bias"].unsqueeze(-2)
    scale = SCALE_FEW if head["length"].shape[-1] <= MANY else SCALE_MANY
    weight = F.normalize(head["direction"], dim=-1) * head["length"].unsqueeze(-1)
    return scale * (F.normalize(x, dim=-1) @ weight.mT)


def first_heads(support: Tensor, classes: Tensor, kind: str) -> Params:
    """Return T initial classifiers that prefer no class: weights 0, or the mean direction of the support set.

    Args:
        support: (T, S, E) embeddings.
        classes: (T, S, way) 1 where an image is of a class, else 0.
        kind: linear or cosine.
    """
    tasks, way, width = len(support), classes.shape[2], support.shape[2]
    if kind == "linear":
        return {"weight": support.new_zeros(tasks, way, width), "bias": support.new_zeros(tasks, way)}
    mean = F.normalize(F.normalize(support, dim=2).mean(1, keepdim=True), dim=2)  # (T, 1, E)
    return {"direction": mean.expand(-1, way, -1).clone(), "length": support.new_ones(tasks, way)}


def trained(head: Params, support: Tensor, y: Tensor, drawn: Tensor, lr: float) -> Params:
    """Return T classifiers trained by SGD with momentum, one step per mini-batch of the support set.

    Args:
        head: the initial classifiers by name, (T, ...) each.
        support: (T, S, E) embeddings.
        y: (T, S) labels.
        drawn: (T, steps, B) indices of mini-batches.
        lr: learning rate.
    """
    tasks = torch.arange(len(support), device=support.device)[:, None]
    names, values = list(head), tuple(head.values())
    speed: tuple[Tensor, ...] | None = None
    for batch in drawn.unbind(1):
        leaves = [p.detach().requires_grad_() for p in values]
        with torch.enable_grad():
            logits = classified(dict(zip(names, leaves, strict=True)), support[tasks, batch])
            loss = task_losses(logits, y[tasks, batch]).sum()
        gradient = torch._foreach_add(torch.autograd.grad(loss, leaves), values, alpha=WEIGHT_DECAY)
        if speed is None:
            speed = gradient
        else:
            speed = torch._foreach_add(torch._foreach_mul(speed, MOMENTUM), gradient, alpha=1 - DAMPENING)
        values = torch._foreach_sub(values, speed, alpha=lr)
    return dict(zip(names, values, strict=True))


def _without_classifier(all_shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of all parameters but the classifier's."""
    return {name: shape for name, shape in all_shapes.items() if not name.startswith(PREFIX)}
