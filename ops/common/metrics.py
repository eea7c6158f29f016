"""Top-k counts and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def num_correct(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Count the samples whose class is among the k best scores, for each k of `topk`.

    Args:
        output: scores (N, K). A k above K counts as K: with three classes every answer is in the top 5.
        target: classes (N,), in [0, K).

    Returns:
        0-d int64 tensors on `output`'s device, one for each k.
    """
    largest = min(max(topk), output.shape[1])
    best = output.topk(largest, dim=1).indices  # (N, k), best first
    hit = best == target.view(-1, 1)  # (N, k)
    return [hit[:, :k].sum() for k in topk]


def confusion_matrix(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count (true class, predicted class) pairs: int64 (K, K), a row for each true class.

    Args:
        predicted, target: classes (N,), in [0, K).
    """
    pairs = target.long() * num_classes + predicted.long()
    return torch.bincount(pairs.flatten().cpu(), minlength=num_classes**2).view(num_classes, num_classes)


def per_class_accuracy(matrix: Tensor) -> Tensor:
    """Share of each true class that was recognised: float64 (K,) in [0, 1], NaN for a class that never occurs."""
    matrix = torch.as_tensor(matrix)
    return matrix.diagonal().double() / matrix.sum(dim=1).double()


def mean_class_accuracy(matrix: Tensor) -> float:
    """Mean accuracy in percent over the classes that occur; NaN where none does."""
    return 100.0 * float(per_class_accuracy(matrix).nanmean())
