"""One epoch of training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.data.loader import LoaderError
from ops.training.schedule import set_learning_rate
from ops.training.settings import Settings
from ops.training.step import FiniteCheck, Networks, Updater, forward_backward
from ops.utils import AverageMeter, hours_minutes_seconds


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

    def add(self, loss: float, prec1: float, prec5: float, num_samples: int) -> None:
        """Take in the means of a step."""
        for meter, value in ((self.losses, loss), (self.top1, prec1), (self.top5, prec5)):
            meter.update(value, num_samples)

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
        loader: `Batch`es from that step on.
        num_steps: steps of the whole epoch.

    Returns:
        Whether the epoch is complete; False if a signal ended it early, after a whole step.

    Raises:
        InputError: a sample that cannot be read, or numbers that are not finite.
        LoaderError: the workers broke down; all is as after the last whole step.
    """
    scaled = updater.scaler is not None
    finite = FiniteCheck(overflow_is_fine=scaled, name_samples=hooks.name_samples, trace=hooks.trace)
    networks.training.train()
    batch_time, data_time = AverageMeter(), AverageMeter()
    bar = progress_bar(loader, f"epoch {progress.epoch}", process, total=num_steps, initial=progress.step)
    end = time.perf_counter()
    for batch in _batches(bar, finite, process, expects_more=lambda: progress.step < num_steps):
        data_time.update(time.perf_counter() - end)
        step = progress.step
        num_total, stop = _agree(batch, progress, finite, settings, process, hooks)
        lr = settings.schedule.step_lr(progress.epoch, step, num_steps)
        set_learning_rate(updater.optimizer, lr, settings.weight_decay)
        if num_total:
            updater.zero_grad()
            read = forward_backward(networks, updater, batch, num_total=num_total, settings=settings, process=process)
            loss, right1, right5 = (total / num_total for total in read.wait())
            finite.loss(step, batch, lr, loss)
            finite.gradient(step, batch, lr, loss, updater.clip_gradient(settings.clip_norm))
            updater.update()
            progress.add(loss, 100.0 * right1, 100.0 * right5, num_total)
        progress.step = step + 1
        batch_time.update(time.perf_counter() - end)
        progress.seconds, end = progress.seconds + batch_time.val, time.perf_counter()
        if step % settings.print_freq == 0:
            finite.flush()
            bar.set_postfix_str(_log_step(progress, num_steps, lr, batch_time, data_time, hooks), refresh=False)
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


def progress_bar(loader: Iterable, text: str, process: Process, *, total: int, initial: int = 0) -> tqdm:
    """tqdm's bar over a loader, on the main process and where stderr is a terminal."""
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


def _log_step(
    progress: EpochProgress,
    num_steps: int,
    lr: float,
    batch_time: AverageMeter,
    data_time: AverageMeter,
    hooks: Hooks,
) -> str:
    """Log the published line with the time left of the epoch and of the run; return the latter for the bar."""
    left = (num_steps - progress.step) * batch_time.avg
    run = f"run {hours_minutes_seconds(left + hooks.run_seconds_left(batch_time.avg))}"
    loss, top1, top5 = progress.losses, progress.top1, progress.top5
    hooks.log(
        f"Epoch: [{progress.epoch}][{progress.step - 1}/{num_steps}], lr: {lr:.5f}\t"
        f"Time {batch_time.val:.3f} ({batch_time.avg:.3f})\tData {data_time.val:.3f} ({data_time.avg:.3f})\t"
        f"Loss {loss.val:.4f} ({loss.avg:.4f})\t"
        f"Prec@1 {top1.val:.3f} ({top1.avg:.3f})\tPrec@5 {top5.val:.3f} ({top5.avg:.3f})\t"
        f"eta {hours_minutes_seconds(left)} ({run})"
    )
    return run
