"""One epoch of training, one pass of validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.common.metrics import confusion_matrix, num_correct
from ops.data.loader_faults import LoaderError
from ops.network.runtime import autocast
from ops.training.schedule import set_learning_rate
from ops.training.settings import Settings
from ops.training.step import FiniteCheck, Networks, Updater, forward_backward, summed_loss
from ops.utils import AverageMeter, hours_minutes_seconds


class StopRequestedError(Exception):
    """A signal asked the run to end during validation."""


@dataclass
class EpochProgress:
    """How far an epoch is, and what it has measured so far; a checkpoint within an epoch carries it.

    Attributes:
        step: steps done.
        num_unread: samples left out because they could not be read.
        seconds: time spent in the steps.
    """

    epoch: int
    step: int = 0
    num_unread: int = 0
    seconds: float = 0.0
    losses: AverageMeter = field(default_factory=AverageMeter)
    top1: AverageMeter = field(default_factory=AverageMeter)
    top5: AverageMeter = field(default_factory=AverageMeter)

    def state_dict(self) -> dict[str, Any]:
        return {key: v.state_dict() if isinstance(v, AverageMeter) else v for key, v in vars(self).items()}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> EpochProgress:
        progress = cls(epoch=state["epoch"])
        for key, value in vars(progress).items():
            if isinstance(value, AverageMeter):
                value.load_state_dict(state[key])
            else:
                setattr(progress, key, type(value)(state[key]))
        return progress


def _ignore(*_: Any) -> None:
    """The hook of a caller that does not listen."""


@dataclass(frozen=True)
class Hooks:
    """What a run does while an epoch passes, on every process.

    Attributes:
        log: print and keep a line.
        trace: keep (step, learning rate, loss, gradient norm) of a step.
        save: write a checkpoint, after every `save_every` steps; the weights are known to be finite then.
        should_stop: whether a signal asked to end. The step under way is finished first.
        unread: take note of a sample that could not be read and was left out.
        name_samples: name those of a batch.
        run_seconds_left: seconds a step -> seconds that are left of the run after this epoch.
    """

    log: Callable[[str], None] = _ignore
    trace: Callable[[int, float, float, float], None] = _ignore
    save: Callable[[], None] = _ignore
    should_stop: Callable[[], bool] = bool
    unread: Callable[[str], None] = _ignore
    name_samples: Callable[[Any], str] = lambda batch: counted(len(batch.labels), "sample")
    run_seconds_left: Callable[[float], float] = lambda step_seconds: 0.0


def train_one_epoch(
    networks: Networks,
    updater: Updater,
    loader: Iterable,
    *,
    progress: EpochProgress,
    num_steps: int,
    settings: Settings,
    process: Process,
    hooks: Hooks,
) -> bool:
    """Train from step `progress.step` to the epoch's end, keeping `progress` up to date.

    Args:
        loader: batches from that step on, with uint8 `clips`, `labels`, `indices` and `failures`.
        num_steps: steps of the whole epoch.

    Returns:
        Whether the epoch is complete; False if a signal ended it early, after a finished step.

    Raises:
        InputError: a sample that cannot be read, or numbers that are not finite.
        LoaderError: the workers broke down; `progress` and the weights are those of the last whole step.
    """
    finite = FiniteCheck(
        overflow_is_fine=updater.scaler is not None, name_samples=hooks.name_samples, trace=hooks.trace
    )
    batch_time, data_time = AverageMeter(), AverageMeter()
    networks.training.train()
    bar = _bar(loader, f"epoch {progress.epoch}", process, total=num_steps, initial=progress.step)
    end = time.perf_counter()
    for batch in _batches(bar, finite, process, expects_more=lambda: progress.step < num_steps):
        data_time.update(time.perf_counter() - end)
        step = progress.step
        num_total, stop = _agree(batch, progress, finite, settings, process, hooks)
        lr = settings.schedule.step_lr(progress.epoch, step, num_steps)
        set_learning_rate(updater.optimizer, lr, settings.weight_decay)
        if num_total:
            updater.zero_grad()
            sums = forward_backward(
                networks, updater, batch, num_total=num_total, settings=settings, process=process
            ).wait()
            loss, prec1, prec5 = sums[0] / num_total, 100.0 * sums[1] / num_total, 100.0 * sums[2] / num_total
            finite.loss(step, batch, lr, loss)
            finite.gradient(step, batch, lr, loss, updater.clip_gradient(settings.clip_norm))
            updater.update()
            progress.losses.update(loss, num_total)
            progress.top1.update(prec1, num_total)
            progress.top5.update(prec5, num_total)
        progress.step = step + 1
        batch_time.update(time.perf_counter() - end)
        progress.seconds += batch_time.val
        end = time.perf_counter()
        if step % settings.print_freq == 0:
            finite.flush()
            left = (num_steps - progress.step) * batch_time.avg
            run_eta = hours_minutes_seconds(left + hooks.run_seconds_left(batch_time.avg))
            bar.set_postfix_str(f"run {run_eta}", refresh=False)
            line = _train_line(progress, num_steps, lr, batch_time, data_time)
            hooks.log(f"{line}\teta {hours_minutes_seconds(left)} (run {run_eta})")
        if progress.step < num_steps:
            if stop or (process.world_size == 1 and hooks.should_stop()):
                finite.flush()
                return False
            if settings.save_every and progress.step % settings.save_every == 0:
                finite.flush()
                hooks.save()
    finite.flush()
    updater.zero_grad()
    return True


def _bar(loader: Iterable, text: str, process: Process, *, total: int, initial: int = 0) -> tqdm:
    hide = None if process.is_main else True  # None: hidden unless stderr is a terminal
    return tqdm(loader, desc=text, total=total, initial=initial, unit="batch", leave=False, disable=hide)


def _batches(
    loader: Iterable, finite: FiniteCheck, process: Process, *, expects_more: Callable[[], bool]
) -> Iterator[Any]:
    """The loader's batches; where it breaks off, the job may save: the weights are known to be finite then, too."""
    try:
        yield from loader
    except LoaderError:
        finite.flush()
        if process.world_size > 1:
            if not expects_more():  # the epoch is whole, and the others no longer listen: the next epoch will tell
                return
            process.gather_ints(_BROKEN)
        raise


_BROKEN = [0, 0, 0, 1]  # what a process whose loader has broken down says in place of `_agree`


def _agree(
    batch: Any, progress: EpochProgress, finite: FiniteCheck, settings: Settings, process: Process, hooks: Hooks
) -> tuple[int, bool]:
    """Settle with the other processes before a step: samples in the job's batch (0: no step), and whether to stop."""
    rows = process.gather_ints([len(batch.labels), int(hooks.should_stop()), len(batch.failures), 0])
    counts, stops, unread, broken = zip(*rows, strict=True)
    if any(broken):
        finite.flush()
        raise LoaderError("the loader workers of another process broke down")
    if any(unread) and settings.on_error == "raise":
        raise InputError(batch.failures[0] if batch.failures else "another process met a sample that cannot be read")
    for message in batch.failures:
        hooks.unread(message)
    progress.num_unread += sum(unread)
    # A process without a single sample has no gradient to contribute: no process takes this step.
    return (sum(counts) if min(counts) else 0), any(stops)


def _train_line(
    progress: EpochProgress, num_steps: int, lr: float, batch_time: AverageMeter, data_time: AverageMeter
) -> str:
    """The published line."""
    loss, top1, top5 = progress.losses, progress.top1, progress.top5
    return (
        f"Epoch: [{progress.epoch}][{progress.step - 1}/{num_steps}], lr: {lr:.5f}\t"
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
    for step, batch in enumerate(_bar(loader, "validation", process, total=num_steps)):
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
