"""One pass of validation."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.common.metrics import confusion_matrix, num_correct
from ops.network.runtime import autocast
from ops.training.epoch import Hooks, progress_bar
from ops.training.settings import Settings
from ops.training.step import Networks, summed_loss
from ops.utils import AverageMeter, hours_minutes_seconds


class StopRequestedError(Exception):
    """A signal asked the run to end during validation."""


@dataclass(frozen=True)
class Validation:
    """What validation found: mean loss, accuracies in percent, and of how many videos.

    Attributes:
        num_videos: videos that were read and counted.
        num_listed: videos in the list.
        confusion: counts (K, K), a row for each true class.
    """

    loss: float
    top1: float
    top5: float
    num_videos: int
    num_listed: int
    confusion: Tensor
    seconds: float


def validate(
    networks: Networks, loader: Iterable, *, num_listed: int, settings: Settings, process: Process, hooks: Hooks
) -> Validation:
    """Measure loss and accuracy; over several processes each video counts once, however they are shared out.

    Args:
        loader: this process's batches.
        num_listed: videos in the list, over all processes.

    Raises:
        InputError: a video that cannot be read (unless `on_error` is 'skip'), or none that can.
        StopRequestedError: a signal came in.
    """
    device = process.device
    process.broadcast_buffers(networks.bare)
    networks.evaluation.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, right in top 1, in top 5, videos
    answers = [torch.empty(0, dtype=torch.int64, device=device)]
    truths = [torch.empty(0, dtype=torch.int64)]
    batch_time = AverageMeter()
    num_steps = len(loader)
    start = end = time.perf_counter()
    for step, batch in enumerate(progress_bar(loader, "validation", process, total=num_steps)):
        if hooks.should_stop():
            raise StopRequestedError
        if batch.failures and settings.on_error == "raise":
            raise InputError(batch.failures[0])
        for message in batch.failures:
            hooks.unread(message)
        if len(batch.labels) == 0:
            continue
        latest, predicted = _validate_batch(networks, batch, settings, device)
        sums += latest
        answers.append(predicted)
        truths.append(batch.labels)
        batch_time.update(time.perf_counter() - end)
        end = time.perf_counter()
        if step % settings.print_freq == 0:
            hooks.log(_test_line(latest, sums, step, num_steps, batch_time))
    confusion = confusion_matrix(torch.cat(answers), torch.cat(truths).to(device), settings.options.num_class)
    loss, right1, right5, num_videos = process.sum_(sums).tolist()
    if not num_videos:
        raise InputError(f"none of {counted(num_listed, 'validation video')} could be read")
    return Validation(
        loss=loss / num_videos,
        top1=100.0 * right1 / num_videos,
        top5=100.0 * right5 / num_videos,
        num_videos=int(num_videos),
        num_listed=num_listed,
        confusion=process.sum_(confusion.to(device)).cpu(),
        seconds=time.perf_counter() - start,
    )


@torch.no_grad()
def _validate_batch(networks: Networks, batch: Any, settings: Settings, device: torch.device) -> tuple[Tensor, Tensor]:
    """[loss, right in top 1, right in top 5, videos] of a batch, float64 (4,), and the predicted classes (N,)."""
    labels = batch.labels.to(device, non_blocking=True)
    with autocast(device, settings.amp):
        scores = networks.evaluation(networks.normalize(batch.clips.to(device, non_blocking=True)))
        loss, scores = summed_loss(scores, labels)
        right1, right5 = num_correct(scores, labels, (1, 5))
    latest = torch.stack([x.double() for x in (loss, right1, right5, torch.full_like(loss, len(labels)))])
    return latest, scores.argmax(dim=1)


def _test_line(latest: Tensor, sums: Tensor, step: int, num_steps: int, batch_time: AverageMeter) -> str:
    """The published line. latest, sums: loss, right in top 1, right in top 5, videos; of this batch, of all so far."""
    (loss, top1, top5), (loss_avg, top1_avg, top5_avg) = ((x[:3] / x[3]).tolist() for x in (latest, sums))
    return (
        f"Test: [{step}/{num_steps}]\tTime {batch_time.val:.3f} ({batch_time.avg:.3f})\t"
        f"Loss {loss:.4f} ({loss_avg:.4f})\t"
        f"Prec@1 {100.0 * top1:.3f} ({100.0 * top1_avg:.3f})\tPrec@5 {100.0 * top5:.3f} ({100.0 * top5_avg:.3f})\t"
        f"eta {hours_minutes_seconds((num_steps - step - 1) * batch_time.avg)}"
    )
