"""No meta-learning: an ordinary classifier of all training classes lends its features to every task.

In a task the features stay as they are, and a new classifier is trained on those of the support set by ``eval_steps``
steps of SGD of ``eval_batch`` images: linear, or by cosines with a learned length per class. These are Baseline and
Baseline++ of Chen, Liu, Kira, Wang, Huang 2019, "A Closer Look at Few-shot Classification", arXiv 1904.04232,
section 3.2.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.algorithms.optim.inner_loop import Params, shapes
from torchreptile.algorithms.rows.pretrained import PretrainedSettings
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.losses import task_losses

PREFIX = "classifier."  # of the parameters of the classifier of training classes
MOMENTUM, DAMPENING, WEIGHT_DECAY = 0.9, 0.9, 1e-3  # of the task's classifier
SCALE_FEW, SCALE_MANY, MANY = 2.0, 10.0, 200  # what cosines are multiplied by: up to so many classes, and beyond


@final
class Pretrained(MetricBased):
    """A classifier's features, and a new classifier on top of them in every task."""

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """The classifier of all training classes, drawn as PyTorch draws linear layers."""
        classes = self.blueprint.classes
        like, bound = next(iter(network_params.values())), self.width**-0.5
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(classes, self.width).uniform_(-bound, bound, generator=generator).to(like)
        second = torch.zeros(classes).to(like)
        if self.config.own(PretrainedSettings).pretrained_head == "cosine":
            return {PREFIX + "direction": weight, PREFIX + "length": weight.norm(dim=1)}
        return {PREFIX + "weight": weight, PREFIX + "bias": second}

    def fits(self, params: Params) -> bool:
        """But for the number of training classes: in a task they have no part."""
        return _without_classifier(shapes(params)) == _without_classifier(self.shapes)

    def losses_and_averages(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Tensor, Params]:
        """Cross-entropy over all training classes; a task is no more than a mini-batch of images."""
        embedded, statistics = self.training_embedder.by_batch(params, episodes.support_x)
        head = {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}
        return task_losses(classified(head, embedded), episodes.classes.gather(1, episodes.support_y)), statistics

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """(T, eval_steps, B) indices of mini-batches."""
        settings = self.config.evaluation
        return minibatches(tasks, images, settings.eval_batch, settings.eval_steps, False, generator)

    def remember(self, params: Params, support: Tensor, classes: Tensor, drawn: Tensor) -> Params:
        """Classifiers trained on the support sets' embeddings."""
        start = first_heads(support, classes, self.config.own(PretrainedSettings).pretrained_head)
        return trained(start, support, classes.argmax(2), drawn, self.config.inner.inner_lr)

    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """By those."""
        return classified(remembered, query)


def classified(head: Params, x: Tensor) -> Tensor:
    """Embeddings (T, B, E) -> logits (T, B, classes), by one classifier or one per task.

    Args:
        head: ``weight`` (..., classes, E) and ``bias`` (..., classes); or ``direction`` (..., classes, E) of any length
            and ``length`` (..., classes): of cosines, which are scaled so that softmax can be sure of a class.
        x: embeddings.
    """
    if "weight" in head:
        return x @ head["weight"].mT + head["bias"].unsqueeze(-2)
    scale = SCALE_FEW if head["length"].shape[-1] <= MANY else SCALE_MANY
    weight = F.normalize(head["direction"], dim=-1) * head["length"].unsqueeze(-1)
    return scale * (F.normalize(x, dim=-1) @ weight.mT)


def first_heads(support: Tensor, classes: Tensor, kind: str) -> Params:
    """T classifiers that prefer no class, so that nothing is drawn: weights 0, or one common direction."""
    tasks, way, width = len(support), classes.shape[2], support.shape[2]
    if kind == "linear":
        return {"weight": support.new_zeros(tasks, way, width), "bias": support.new_zeros(tasks, way)}
    mean = F.normalize(F.normalize(support, dim=2).mean(1, keepdim=True), dim=2)  # (T, 1, E)
    return {"direction": mean.expand(-1, way, -1).clone(), "length": support.new_ones(tasks, way)}


def trained(head: Params, support: Tensor, y: Tensor, drawn: Tensor, lr: float) -> Params:
    """T classifiers, each after one step of SGD with momentum per mini-batch of its support set.

    Args:
        head: where they start.
        support: (T, S, E) embeddings.
        y: (T, S) labels.
        drawn: (T, steps, B) mini-batches.
        lr: step size.
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


def _without_classifier(form: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in form.items() if not name.startswith(PREFIX)}
