"""One step of training: the gradient of a batch, the update of the weights, and a check that both are finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from ops.common.distributed import Process, parallel
from ops.common.errors import InputError
from ops.common.metrics import num_correct
from ops.network.runtime import autocast
from ops.training.settings import Settings


@dataclass(frozen=True)
class Networks:
    """One network, as saved and as wrapped for its two uses, with what turns uint8 clips into its input.

    loss_weights: weight of each class in the training loss, (K,) on the network's device.
    """

    bare: nn.Module
    training: nn.Module
    evaluation: nn.Module
    normalize: Callable[[Tensor], Tensor]
    loss_weights: Tensor | None = None

    @classmethod
    def wrap(
        cls,
        model: nn.Module,
        normalize: Callable[[Tensor], Tensor],
        process: Process,
        *,
        compiled: bool = False,
        loss_weights: Sequence[float] | None = None,
    ) -> Networks:
        """Share a network, on its device already, out over all devices of the job; `compiled`: by torch.compile."""
        model.train()  # freezes what partial BN freezes, before DDP looks at what there is to exchange
        training = parallel(model, process)
        # DDP's processes must take equally many steps, and their shares of the validation videos may differ by one.
        evaluation = model if process.world_size > 1 else training
        if compiled:
            training, evaluation = torch.compile(training), torch.compile(evaluation)
        weights = None if loss_weights is None else torch.tensor(loss_weights, device=process.device)
        return cls(model, training, evaluation, normalize, weights)


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


class Updater:
    """The optimiser, together with fp16's loss scale where there is one."""

    def __init__(self, optimizer: Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        self.optimizer, self.scaler = optimizer, scaler
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss to the parameters'."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip_gradient(self, clip_norm: float | None) -> Tensor:
        """Scale the gradient down to the norm `clip_norm`, if given; return its 0-d norm before that."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        return nn.utils.clip_grad_norm_(self.parameters, math.inf if clip_norm is None else clip_norm)

    def update(self) -> None:
        """Take the optimiser's step; where fp16's gradient overflowed, its scaler leaves it out."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


def summed_loss(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cross entropy added up over the samples, and the scores that accuracy is taken of.

    Args:
        scores: (N, K); or (N, T, K) without consensus: each frame answers for itself, and the clip by their mean.
        labels: (N,).
        weights: what a sample of each class counts, (K,); None: 1.

    Returns:
        0-d loss, scores (N, K).
    """
    if scores.dim() == 3:
        num_segments = scores.shape[1]
        loss = F.cross_entropy(scores.flatten(0, 1), labels.repeat_interleave(num_segments), weights, reduction="sum")
        return loss / num_segments, scores.mean(dim=1)
    return F.cross_entropy(scores, labels, weights, reduction="sum"), scores


def forward_backward(
    networks: Networks, updater: Updater, batch: Any, *, num_total: int, settings: Settings, process: Process
) -> HostRead:
    """Add the gradient of the mean loss over the job's batch to the parameters.

    The batch passes in `settings.accum_steps` parts. Whatever their sizes, and those of other processes, the gradient
    is that of the mean over all `num_total` samples: each part contributes its sum divided by that number.

    Args:
        batch: `clips`, uint8 (N, ..., H, W), and `labels` (N,), on the CPU, N > 0.
        num_total: samples in the job's batch.

    Returns:
        [summed loss, right in the top 1, right in the top 5] of the job's batch, on their way to the CPU.
    """
    device = process.device
    # DDP takes the mean of the processes' gradients, but it is their sum that is wanted.
    weight = process.world_size / num_total
    parts = list(zip(*(x.chunk(settings.accum_steps) for x in (batch.clips, batch.labels)), strict=True))
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    for number, (clips, labels) in enumerate(parts, 1):
        is_last = number == len(parts)
        with contextlib.nullcontext() if is_last or process.world_size == 1 else networks.training.no_sync():
            labels = labels.to(device, non_blocking=True)
            with autocast(device, settings.amp):
                scores = networks.training(networks.normalize(clips.to(device, non_blocking=True)))
                loss, scores = summed_loss(scores, labels, networks.loss_weights)
            right1, right5 = num_correct(scores.detach(), labels, (1, 5))
            sums += torch.stack([loss.detach().double(), right1.double(), right5.double()])
            if is_last:
                read = HostRead(process.sum_(sums))
            updater.backward(loss * weight)
    return read


class FiniteCheck:
    """Ends training at a loss or gradient that is not finite, before weights made of it are saved.

    The loss is known before the weights change. So is the gradient's norm on the CPU; on CUDA it is read one step
    later, where no waiting is needed, or by `flush` before a checkpoint is written. An overflow under fp16 is not an
    error: its scaler deals with it.

    Args:
        overflow_is_fine: there is such a scaler.
        name_samples: batch -> the samples in it.
        trace: called with (step, learning rate, loss, norm) of each good step.
    """

    def __init__(
        self,
        *,
        overflow_is_fine: bool,
        name_samples: Callable[[Any], str],
        trace: Callable[[int, float, float, float], None],
    ) -> None:
        self._overflow_is_fine = overflow_is_fine
        self._name_samples, self._trace = name_samples, trace
        self._pending: tuple[int, Any, float, float, HostRead] | None = None

    def loss(self, step: int, batch: Any, lr: float, loss: float) -> None:
        """Check a step's loss, and the gradient of the step before."""
        self.flush()
        if not math.isfinite(loss):
            raise self._error("loss", loss, step, batch, lr)

    def gradient(self, step: int, batch: Any, lr: float, loss: float, norm: Tensor) -> None:
        """Check a step's gradient by its norm, now or later."""
        self._pending = (step, batch, lr, loss, HostRead(norm))
        if not norm.is_cuda:
            self.flush()

    def flush(self) -> None:
        """Check the latest gradient, if that has not been done."""
        if self._pending is None:
            return
        (step, batch, lr, loss, read), self._pending = self._pending, None
        norm = read.wait()[0]
        if math.isfinite(norm):
            self._trace(step, lr, loss, norm)
        elif not self._overflow_is_fine:
            raise self._error("gradient's norm", norm, step, batch, lr)

    def _error(self, what: str, value: float, step: int, batch: Any, lr: float) -> InputError:
        return InputError(
            f"the {what} is {value} in step {step} at learning rate {lr:g} ({self._name_samples(batch)}); "
            "a lower --lr, --warmup_epochs or --clip-gradient may help"
        )
