"""Learning rates: a function of epoch and step alone, so that a resumed run finds the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step of a run.

    Attributes:
        lr: base rate, already scaled to the batch size.
        lr_type: 'step' (lr * 0.1^(steps passed)) or 'cos' (lr/2 * (1 + cos(pi * epoch / epochs))), both set per epoch.
        lr_steps: epochs at which 'step' divides by 10.
        epochs: length of the run, which 'cos' needs.
        warmup_epochs: linear warm-up within the first epochs, step by step (arXiv:1706.02677, sec. 2.2).
    """

    lr: float
    lr_type: str = "step"
    lr_steps: Sequence[float] = (50, 100)
    epochs: int = 120
    warmup_epochs: int = 0

    def epoch_lr(self, epoch: int) -> float:
        """Rate of an epoch (from 0) before warm-up."""
        if self.lr_type == "step":
            return self.lr * 0.1 ** sum(epoch >= step for step in self.lr_steps)
        if self.lr_type == "cos":
            return 0.5 * self.lr * (1.0 + math.cos(math.pi * epoch / self.epochs))
        raise ValueError(f"lr_type {self.lr_type!r}; choose step or cos")

    def warmup_factor(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Share of the rate that warm-up lets through: 1/n, 2/n, ... 1 over the n steps of the warm-up epochs."""
        num_steps = self.warmup_epochs * steps_per_epoch
        return min(1.0, (epoch * steps_per_epoch + step + 1) / num_steps) if num_steps else 1.0

    def step_lr(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """Rate of one step (epoch and step from 0)."""
        return self.epoch_lr(epoch) * self.warmup_factor(epoch, step, steps_per_epoch)


def scaled_lr(lr: float, batch_size: int, base_batch: int | None) -> float:
    """Scale a rate that suits batches of `base_batch` to `batch_size` linearly; None leaves it as it is.

    Example: 0.02 for 128 videos is 0.08 for 512 (arXiv:1706.02677).
    """
    return lr if base_batch is None else lr * batch_size / base_batch


def set_learning_rate(optimizer: Optimizer, lr: float, weight_decay: float) -> None:
    """Give each group `lr` times its `lr_mult`, and `weight_decay` times its `decay_mult`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]
        group["weight_decay"] = weight_decay * group["decay_mult"]
