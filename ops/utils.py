"""The published meters: running means and top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ops.common.metrics import num_correct


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


def accuracy(output: Tensor, target: Tensor, topk: Sequence[int] = (1,)) -> list[Tensor]:
    """Top-k accuracy in percent, for each k of `topk`: 0-d float tensors on `output`'s device.

    Example: scores [[.1, .9], [.8, .2]] with classes [1, 1] have a top-1 accuracy of 50.
    """
    return [100.0 * count.float() / max(len(target), 1) for count in num_correct(output, target, topk)]


def hours_minutes_seconds(seconds: float) -> str:
    """A duration as people read it: 5025 -> '1:23:45'."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{whole_seconds:02}"
