"""Meters, top-k accuracy, confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class AverageMeter:
    """Latest value and running mean of one quantity.

    Values may be floats or 0-d tensors on any device. Tensors are summed where they are, so that an update never makes
    the CPU wait for the device; reading `val` or `avg` does.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._val: float | Tensor = 0.0
        self._sum: float | Tensor = 0.0
        self.count = 0

    def update(self, value: float | Tensor, n: int = 1) -> None:
        """Add `value`, the mean of `n` samples."""
        if isinstance(value, Tensor):
            value = value.detach().double()
        self._val = value
        self._sum = self._sum + value * n
        self.count += n

    @property
    def val(self) -> float:
        return float(self._val)

    @property
    def sum(self) -> float:
        return float(self._sum)

    @property
    def avg(self) -> float:
        return self.sum / self.count if self.count else 0.0

    def state_dict(self) -> dict[str, float | int]:
        return {"val": self.val, "sum": self.sum, "count": self.count}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        self._val, self._sum, self.count = float(state["val"]), float(state["sum"]), int(state["count"])


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


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Top-k accuracy in percent, for each k of `topk`: 0-d float tensors on `output`'s device.

    Example: scores [[.1, .9], [.8, .2]] with classes [1, 1] have a top-1 accuracy of 50.
    """
    return [100.0 * count.float() / max(len(target), 1) for count in num_correct(output, target, topk)]


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
