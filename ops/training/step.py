"""One step of training: the gradient of a batch, and the watch over numbers that are not finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ops.common.distributed import Process
from ops.common.errors import InputError
from ops.common.metrics import num_correct
from ops.network.runtime import autocast

Normalize = Callable[[Tensor], Tensor]

_MAX_SKIPPED_IN_A_ROW = 20


class HostRead:
    """Numbers on their way from the device to the CPU; `wait` gives them.

    Queued ahead of further work: the wait ends when the device passes this point, with work left for it to do.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host = tensor.detach().to("cpu", non_blocking=True)  # lands in pinned memory
        self._event = torch.cuda.Event() if tensor.is_cuda else None
        if self._event is not None:
            self._event.record()

    def wait(self) -> list[float]:
        """The numbers, flattened."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.flatten().tolist()


def summed_loss(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy added up over the samples, and the scores that accuracy is taken of.

    Args:
        scores: (N, K); or (N, T, K) without consensus: each frame answers for itself, and the clip by their mean.
        labels: (N,).

    Returns:
        0-d loss, scores (N, K).
    """
    if scores.dim() == 3:
        num_segments = scores.shape[1]
        loss = F.cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(num_segments), reduction="sum")
        return loss / num_segments, scores.mean(dim=1)
    return F.cross_entropy(scores, labels, reduction="sum"), scores


def forward_backward(
    model: nn.Module,
    clips: Tensor,
    labels: Tensor,
    *,
    normalize: Normalize,
    device: torch.device,
    amp: str = "none",
    scaler: torch.amp.GradScaler | None = None,
    accum_steps: int = 1,
    num_total: int | None = None,
    process: Process | None = None,
) -> HostRead:
    """Add the gradient of the mean loss over the job's batch to the parameters.

    The batch passes in `accum_steps` parts. Whatever their sizes, and those of other processes, the gradient is that of
    the mean over all `num_total` samples: each part contributes its sum divided by that number.

    Args:
        clips: uint8 (N, ..., H, W) on the CPU, N > 0.
        labels: (N,) on the CPU.
        num_total: samples in the job's batch; by default those given here.

    Returns:
        [summed loss, right in the top 1, right in the top 5] of the job's batch, on their way to the CPU.
    """
    process = process or Process(device=device)
    # DDP takes the mean of the processes' gradients, but it is their sum that is wanted.
    weight = process.world_size / (num_total or len(labels))
    parts = list(zip(clips.chunk(accum_steps), labels.chunk(accum_steps), strict=True))
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for number, (part, part_labels) in enumerate(parts, 1):
        is_last = number == len(parts)
        with contextlib.nullcontext() if is_last or process.world_size == 1 else model.no_sync():
            part_labels = part_labels.to(device, non_blocking=True)
            with autocast(device, amp):
                scores = model(normalize(part.to(device, non_blocking=True)))
                loss, scores = summed_loss(scores, part_labels)
            right1, right5 = num_correct(scores.detach(), part_labels, (1, 5))
            sums += torch.stack([loss.detach().double(), right1.double(), right5.double()])
            if is_last:
                read = HostRead(process.sum_(sums))
            loss = loss * weight
            (loss if scaler is None else scaler.scale(loss)).backward()
    return read


def clip_gradient(
    parameters: Sequence[Tensor],
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler | None,
    clip_norm: float | None,
) -> Tensor:
    """Scale the gradient down to the norm `clip_norm`, if given, after fp16's loss scale is out of it.

    Returns:
        0-d norm of the gradient of all parameters together, before clipping.
    """
    if scaler is not None:
        scaler.unscale_(optimizer)
    return nn.utils.clip_grad_norm_(parameters, math.inf if clip_norm is None else clip_norm)


def update_weights(optimizer: Optimizer, scaler: torch.amp.GradScaler | None) -> None:
    """Take the optimiser's step; fp16's scaler leaves it out where the gradient overflowed, and halves its scale."""
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()


class FiniteGuard:
    """Stops training, or skips the step, where the loss or the gradient is not finite.

    The loss is known before the weights change. So is the gradient's norm on the CPU and under 'skip'; under 'stop' on
    CUDA it is read one step later, where no waiting is needed, but always before a checkpoint is written. An overflow
    under fp16 is not an error: its scaler deals with it.

    Args:
        model: its BN statistics are put back when a step is skipped.
        on_nan: 'stop' or 'skip'.
        describe: (step, batch, loss, norm) -> what to add to the message: the samples, and where they were saved.
        trace: called with (step, learning rate, loss, norm) of each good step.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[Tensor],
        *,
        on_nan: str,
        scaled: bool,
        describe: Callable[[int, Any, float, float], str],
        trace: Callable[[int, float, float, float], None],
        log: Callable[[str], None],
    ) -> None:
        self._parameters = parameters
        self._buffers = list(model.buffers()) if on_nan == "skip" else []
        self._saved: list[Tensor] = []
        self._on_nan, self._scaled = on_nan, scaled
        self._describe, self._trace, self._log = describe, trace, log
        self._pending: tuple[int, Any, float, float, HostRead] | None = None
        self._in_a_row = 0
        self.num_skipped = 0

    def before_step(self) -> None:
        """Remember what a skipped step must leave as it was."""
        self._saved = [buffer.clone() for buffer in self._buffers]

    def loss_is_good(self, step: int, batch: Any, lr: float, loss: float) -> bool:
        """Whether to go on with this step; False under 'skip' if the loss is not finite."""
        self.check_pending()
        return math.isfinite(loss) or self._refuse(step, batch, lr, loss, math.nan, "the loss")

    def gradient_is_good(self, step: int, batch: Any, lr: float, loss: float, norm: Tensor) -> bool:
        """Whether to update the weights; False under 'skip' if the gradient is not finite."""
        self._pending = (step, batch, lr, loss, HostRead(norm))
        if not norm.is_cuda or (self._on_nan == "skip" and not self._scaled):
            return self.check_pending()
        return True

    def check_pending(self) -> bool:
        """Look at the gradient norm of the latest step, if nobody has."""
        if self._pending is None:
            return True
        step, batch, lr, loss, read = self._pending
        self._pending = None
        norm = read.wait()[0]
        if math.isfinite(norm):
            self._in_a_row = 0
            self._trace(step, lr, loss, norm)
            return True
        return self._scaled or self._refuse(step, batch, lr, loss, norm, "the gradient's norm")

    def _refuse(self, step: int, batch: Any, lr: float, loss: float, norm: float, what: str) -> bool:
        value = norm if math.isfinite(loss) else loss
        message = f"{what} is {value} in step {step} at learning rate {lr:g}; {self._describe(step, batch, loss, norm)}"
        if self._on_nan == "stop":
            raise InputError(f"{message}; a lower --lr, --warmup_epochs or --clip-gradient may help, or --on_nan skip")
        if not all(bool(p.isfinite().all()) for p in self._parameters):
            raise InputError(f"{message}; the weights are not finite either, so skipping steps would not help")
        self._in_a_row += 1
        self.num_skipped += 1
        if self._in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            raise InputError(f"{message}; that is {self._in_a_row} steps in a row, so skipping does not help")
        for buffer, saved in zip(self._buffers, self._saved, strict=True):
            buffer.copy_(saved)
        self._log(f"Skipped: {message}")
        return False
