"""Losses, answers and scores of labels and of values, against what they are defined as, number by number."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from torchreptile.models.losses import answers, mean_loss, scores, task_losses


def test_of_labels() -> None:
    logits = torch.tensor([[[2.0, 1.0], [0.0, 3.0]], [[1.0, 0.0], [1.0, 0.0]]])
    labels = torch.tensor([[0, 0], [0, 1]])
    expected = [F.cross_entropy(logits[task], labels[task]) for task in range(2)]
    torch.testing.assert_close(task_losses(logits, labels), torch.stack(expected))
    torch.testing.assert_close(mean_loss(logits[0], labels[0]), expected[0])
    assert answers(logits, labels).tolist() == [[0, 1], [0, 0]]
    assert scores(answers(logits, labels), labels).tolist() == [0.5, 0.5]


def test_of_values() -> None:
    predicted = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 1.0]]])
    truth = torch.tensor([[[1.0, 0.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    errors = [(4 + 9) / 4, 1 / 4]
    assert task_losses(predicted, truth).tolist() == errors
    assert float(mean_loss(predicted[0], truth[0])) == errors[0]
    assert answers(predicted, truth) is predicted
    assert scores(predicted, truth).tolist() == pytest.approx(errors)
    assert scores(predicted, truth).dtype == torch.float64
