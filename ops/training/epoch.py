"""One epoch of training, one pass of validation: plain arguments in, numbers out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.common.metrics import confusion_matrix, num_correct
from ops.data.loader import LoaderError
from ops.training.progress import EpochProgress, Hooks, StopRequestedError
from ops.training.schedule import set_learning_rate
from ops.training.step import (
    FiniteGuard,
    Normalize,
    autocast,
    clip_gradient,
    forward_backward,
    summed_loss,
    update_weights,
)
from ops.utils import AverageMeter


def train_one_epoch(
    model: nn.Module,
    loader: Iterable,
    optimizer: Optimizer,
    *,
    progress: EpochProgress,
    num_steps: int,
    normalize: Normalize,
    device: torch.device,
    lr_of_step: Callable[[int], float],
    weight_decay: float,
    clip_norm: float | None = None,
    accum_steps: int = 1,
    amp: str = "none",
    scaler: torch.amp.GradScaler | None = None,
    on_nan: str = "stop",
    on_error: str = "raise",
    print_freq: int = 20,
    save_every: int | None = None,
    process: Process | None = None,
    hooks: Hooks | None = None,
) -> bool:
    """Train from step `progress.step` to the epoch's end, keeping `progress` up to date.

    Args:
        model: the network as wrapped for training (DDP, DataParallel, compiled, or none of these).
        loader: batches from that step on, with uint8 `clips`, `labels`, `indices` and `failures`.
        num_steps: steps of the whole epoch.
        lr_of_step: step -> learning rate before the groups' multiples.
        weight_decay: before the groups' multiples.
        clip_norm: largest norm of the gradient of all parameters together; None does not clip.
        on_nan: 'stop' or 'skip' the step if loss or gradient is not finite.
        on_error: 'raise' or 'skip' samples that could not be read.

    Returns:
        Whether the epoch is complete; False if a signal ended it early, behind a finished step.

    Raises:
        InputError: a sample that cannot be read, or numbers that are not finite.
        LoaderError: the workers broke down; `progress` and the weights are those of the last whole step.
    """
    process, hooks = process or Process(device=device), hooks or Hooks()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    guard = FiniteGuard(
        model,
        parameters,
        on_nan=on_nan,
        scaled=scaler is not None,
        describe=hooks.describe_nonfinite,
        trace=hooks.trace,
        log=hooks.log,
    )
    batch_time, data_time = AverageMeter(), AverageMeter()
    nonfinite_before = progress.num_nonfinite
    model.train()
    end = time.perf_counter()
    for batch in _batches(loader, guard, process, expects_more=lambda: progress.step < num_steps):
        data_time.update(time.perf_counter() - end)
        step = progress.step
        num_total, stop = _agree(batch, process, progress, hooks, guard, on_error=on_error)
        lr = lr_of_step(step)
        set_learning_rate(optimizer, lr, weight_decay)
        if num_total:
            guard.before_step()
            optimizer.zero_grad(set_to_none=True)
            read = forward_backward(
                model,
                batch.clips,
                batch.labels,
                normalize=normalize,
                device=device,
                amp=amp,
                scaler=scaler,
                accum_steps=accum_steps,
                num_total=num_total,
                process=process,
            )
            loss_sum, right1, right5 = read.wait()
            loss = loss_sum / num_total
            if guard.loss_is_good(step, batch, lr, loss):
                norm = clip_gradient(parameters, optimizer, scaler, clip_norm)
                if guard.gradient_is_good(step, batch, lr, loss, norm):
                    update_weights(optimizer, scaler)
                progress.losses.update(loss, num_total)
                progress.top1.update(100.0 * right1 / num_total, num_total)
                progress.top5.update(100.0 * right5 / num_total, num_total)
            progress.num_nonfinite = nonfinite_before + guard.num_skipped
        progress.step = step + 1
        batch_time.update(time.perf_counter() - end)
        progress.seconds += batch_time.val
        end = time.perf_counter()
        if step % print_freq == 0:
            guard.check_pending()
            hooks.log(_train_line(progress, step, num_steps, lr, batch_time, data_time))
        if progress.step < num_steps:
            if stop or (process.world_size == 1 and hooks.should_stop()):
                guard.check_pending()
                return False
            if save_every and progress.step % save_every == 0:
                guard.check_pending()
                hooks.save(progress)
    guard.check_pending()
    optimizer.zero_grad(set_to_none=True)
    return True


def _batches(
    loader: Iterable, guard: FiniteGuard, process: Process, *, expects_more: Callable[[], bool]
) -> Iterator[Any]:
    """The loader's batches; where it breaks off, the job may save: the weights are known to be finite then, too."""
    try:
        yield from loader
    except LoaderError:
        guard.check_pending()
        if process.world_size > 1:
            if not expects_more():  # the epoch is whole, and the others do not listen any more: the next one will tell
                return
            process.gather_ints(_BROKEN)
        raise


_BROKEN = [0, 0, 0, 1]  # what a process says in place of `_agree` whose loader has broken down


def _agree(
    batch: Any, process: Process, progress: EpochProgress, hooks: Hooks, guard: FiniteGuard, *, on_error: str
) -> tuple[int, bool]:
    """Settle with the other processes before a step: samples in the job's batch (0: no step), and whether to stop."""
    rows = process.gather_ints([len(batch.labels), int(hooks.should_stop()), len(batch.failures), 0])
    counts, stops, unread, broken = zip(*rows, strict=True)
    if any(broken):
        guard.check_pending()
        raise LoaderError("the loader workers of another process broke down")
    if any(unread) and on_error == "raise":
        raise InputError(batch.failures[0] if batch.failures else "another process met a sample that cannot be read")
    for message in batch.failures:
        hooks.unread(message)
    progress.num_unread += sum(unread)
    # A process without a single sample has no gradient to contribute: nobody takes this step.
    return (sum(counts) if min(counts) else 0), any(stops)


def _train_line(
    progress: EpochProgress, step: int, num_steps: int, lr: float, batch_time: AverageMeter, data_time: AverageMeter
) -> str:
    loss, top1, top5 = progress.losses, progress.top1, progress.top5
    return (
        f"Epoch: [{progress.epoch}][{step}/{num_steps}], lr: {lr:.5f}\t"
        f"Time {batch_time.val:.3f} ({batch_time.avg:.3f})\tData {data_time.val:.3f} ({data_time.avg:.3f})\t"
        f"Loss {loss.val:.4f} ({loss.avg:.4f})\t"
        f"Prec@1 {top1.val:.3f} ({top1.avg:.3f})\tPrec@5 {top5.val:.3f} ({top5.avg:.3f})"
    )


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
    model: nn.Module,
    loader: Iterable,
    *,
    num_listed: int,
    num_classes: int,
    normalize: Normalize,
    device: torch.device,
    amp: str = "none",
    on_error: str = "raise",
    print_freq: int = 20,
    process: Process | None = None,
    hooks: Hooks | None = None,
) -> Validation:
    """Measure loss and accuracy; over several processes each video counts once, however they are shared out.

    Args:
        model: the bare network, or DataParallel around it; never DDP, whose processes must take equally many steps.
        loader: this process's batches.
        num_listed: videos in the list, over all processes.

    Raises:
        InputError: a video that cannot be read (unless `on_error` is 'skip'), or not one that can.
        StopRequestedError: a signal came in.
    """
    process, hooks = process or Process(device=device), hooks or Hooks()
    process.broadcast_buffers(model)
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=device)  # loss, right in top 1, in top 5, videos
    answers = [torch.empty(0, dtype=torch.int64, device=device)]
    truths = [torch.empty(0, dtype=torch.int64)]
    batch_time = AverageMeter()
    num_steps = len(loader)
    start = end = time.perf_counter()
    for step, batch in enumerate(loader):
        if hooks.should_stop():
            raise StopRequestedError
        if batch.failures and on_error == "raise":
            raise InputError(batch.failures[0])
        for message in batch.failures:
            hooks.unread(message)
        if len(batch.labels) == 0:
            continue
        labels = batch.labels.to(device, non_blocking=True)
        with torch.no_grad(), autocast(device, amp):
            loss, scores = summed_loss(model(normalize(batch.clips.to(device, non_blocking=True))), labels)
            right1, right5 = num_correct(scores, labels, (1, 5))
        latest = torch.stack([x.double() for x in (loss, right1, right5, torch.full_like(loss, len(labels)))])
        sums += latest
        answers.append(scores.argmax(dim=1))
        truths.append(batch.labels)
        batch_time.update(time.perf_counter() - end)
        end = time.perf_counter()
        if step % print_freq == 0:
            hooks.log(_test_line(latest, sums, step, num_steps, batch_time))
    confusion = confusion_matrix(torch.cat(answers), torch.cat(truths).to(device), num_classes)
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


def _test_line(latest: Tensor, sums: Tensor, step: int, num_steps: int, batch_time: AverageMeter) -> str:
    """The published line. latest, sums: loss, right in top 1, right in top 5, videos; of this batch, of all so far."""
    (loss, top1, top5), (loss_avg, top1_avg, top5_avg) = ((x[:3] / x[3]).tolist() for x in (latest, sums))
    return (
        f"Test: [{step}/{num_steps}]\tTime {batch_time.val:.3f} ({batch_time.avg:.3f})\t"
        f"Loss {loss:.4f} ({loss_avg:.4f})\t"
        f"Prec@1 {100.0 * top1:.3f} ({100.0 * top1_avg:.3f})\tPrec@5 {100.0 * top5:.3f} ({100.0 * top5_avg:.3f})"
    )
