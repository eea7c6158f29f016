"""A training run: epochs, validation, checkpoints, logs, from the first step or from where a checkpoint left off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from ops.checkpoint.file import ModelOptions, published_state_dict, rng_state, save_checkpoint
from ops.common.distributed import Process
from ops.common.errors import counted
from ops.common.signals import StopSignals
from ops.data.loader import LoaderError
from ops.dataset import TSNDataSet
from ops.training.epoch import Validation, train_one_epoch, validate
from ops.training.faults import UnreadSamples, describe_nonfinite
from ops.training.log import RunLog
from ops.training.progress import EpochProgress, Hooks, StopRequestedError
from ops.training.resume import BEST, LATEST, Position
from ops.training.schedule import Schedule
from ops.training.setup import Networks
from ops.training.step import Normalize


@dataclass(frozen=True)
class RunSettings:
    """The plain numbers of a run; see `train_one_epoch` for most of them.

    Attributes:
        epochs: length of the run.
        batch_size: of the whole job.
        eval_freq: validate behind every so many epochs, and behind the last.
        save_every: also save behind every so many steps.
    """

    epochs: int
    batch_size: int
    weight_decay: float
    eval_freq: int = 5
    print_freq: int = 20
    save_every: int | None = None
    clip_norm: float | None = None
    accum_steps: int = 1
    amp: str = "none"
    on_nan: str = "stop"
    on_error: str = "raise"


class Run:
    """Trains from a `Position` to the last epoch.

    Args:
        model_folder: where checkpoints go.
        options: rebuild the network and its data pipeline; kept in each checkpoint.
        recorded: options that a resumed run must share.
    """

    def __init__(
        self,
        networks: Networks,
        optimizer: Optimizer,
        train_loader: DataLoader,
        val_loader: DataLoader,
        *,
        train_set: TSNDataSet,
        val_set: TSNDataSet,
        schedule: Schedule,
        settings: RunSettings,
        normalize: Normalize,
        scaler: torch.amp.GradScaler | None,
        process: Process,
        log: RunLog,
        stop: StopSignals,
        model_folder: Path,
        options: ModelOptions,
        recorded: Mapping[str, Any],
        position: Position,
        num_steps: int,
    ) -> None:
        self.networks, self.optimizer, self.scaler = networks, optimizer, scaler
        self.train_loader, self.val_loader = train_loader, val_loader
        self.train_set, self.val_set = train_set, val_set
        self.schedule, self.settings, self.normalize = schedule, settings, normalize
        self.process, self.log, self.stop = process, log, stop
        self.model_folder, self.options, self.recorded = model_folder, options, recorded
        self.position, self.num_steps = position, num_steps
        self.last_validation: Validation | None = None
        self._unread = UnreadSamples(position.unread, log, process)

    def fit(self) -> bool:
        """Train to the end; False if a signal ended the run early, saved and ready to go on."""
        while self.position.epoch < self.settings.epochs:
            if not self._epoch():
                return False
        self._unread.report()
        return True

    def validate(self) -> Validation:
        """Validate once, and log the outcome.

        Raises:
            StopRequestedError: a signal came in.
        """
        result = validate(
            self.networks.evaluation,
            self._bar(self.val_loader, "validation", total=len(self.val_loader)),
            num_listed=len(self.val_set),
            num_classes=self.options.num_class,
            normalize=self.normalize,
            device=self.process.device,
            amp=self.settings.amp,
            on_error=self.settings.on_error,
            print_freq=self.settings.print_freq,
            process=self.process,
            hooks=self._hooks(),
        )
        self._unread.share()
        self.log.line(f"Testing Results: Prec@1 {result.top1:.3f} Prec@5 {result.top5:.3f} Loss {result.loss:.5f}")
        self.log.line(f"{result.num_videos} of {counted(result.num_listed, 'video')}")
        self.last_validation = result
        return result

    # --- an epoch -----------------------------------------------------------------------------------------------------

    def _epoch(self) -> bool:
        """Train and validate one epoch and save it; False if a signal ended it."""
        position, settings = self.position, self.settings
        epoch = position.epoch
        if self._stop_wanted():  # everything so far is saved
            return False
        was_resumed = position.progress is not None
        progress = position.progress = position.progress or EpochProgress(epoch)
        is_last = epoch + 1 == settings.epochs
        is_due = is_last or (epoch + 1) % settings.eval_freq == 0
        if progress.step < self.num_steps:
            was_resumed = False
            try:
                complete = self._train(progress)
            except LoaderError as error:
                self.save()
                saved = f"saved behind step {progress.step} of epoch {epoch}, --resume auto goes on from there"
                raise LoaderError(f"{error}; {saved}") from error
            if not complete:
                self.save()
                return False
            self._unread.share()
            self._log_training(progress)
        result = None
        if is_due:
            if not was_resumed:
                self.save()  # a kill during validation costs no training
            if self._stop_wanted():
                return False
            try:
                result = self.validate()
            except StopRequestedError:
                return False
        self._finish_epoch(progress, result)
        return True

    def _train(self, progress: EpochProgress) -> bool:
        settings, epoch = self.settings, progress.epoch
        self.train_loader.sampler.set_epoch(epoch, progress.step * settings.batch_size)
        return train_one_epoch(
            self.networks.training,
            self._bar(self.train_loader, f"epoch {epoch}", total=self.num_steps, initial=progress.step),
            self.optimizer,
            progress=progress,
            num_steps=self.num_steps,
            normalize=self.normalize,
            device=self.process.device,
            lr_of_step=lambda step: self.schedule.step_lr(epoch, step, self.num_steps),
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            accum_steps=settings.accum_steps,
            amp=settings.amp,
            scaler=self.scaler,
            on_nan=settings.on_nan,
            on_error=settings.on_error,
            print_freq=settings.print_freq,
            save_every=settings.save_every,
            process=self.process,
            hooks=self._hooks(),
        )

    def _log_training(self, progress: EpochProgress) -> None:
        epoch = progress.epoch
        self.log.scalar("loss/train", progress.losses.avg, epoch)
        self.log.scalar("acc/train_top1", progress.top1.avg, epoch)
        self.log.scalar("acc/train_top5", progress.top5.avg, epoch)
        self.log.scalar("lr", self.schedule.step_lr(epoch, self.num_steps - 1, self.num_steps), epoch)

    def _finish_epoch(self, progress: EpochProgress, result: Validation | None) -> None:
        position, epoch = self.position, progress.epoch
        # While nothing was right yet, the latest counts as best, so that there is one from the first validation on.
        is_best = result is not None and (result.top1 > position.best_prec1 or position.best_prec1 == 0.0)
        row = {
            "epoch": epoch,
            "lr": self.schedule.step_lr(epoch, self.num_steps - 1, self.num_steps),
            "train_loss": progress.losses.avg,
            "train_top1": progress.top1.avg,
            "train_top5": progress.top5.avg,
            "seconds": round(progress.seconds + (result.seconds if result else 0.0), 3),
            "skipped": progress.num_unread,
            "nonfinite": progress.num_nonfinite,
        }
        if result is not None:
            position.best_prec1 = max(position.best_prec1, result.top1)
            self.log.line(f"Best Prec@1: {position.best_prec1:.3f}")
            self.log.line("")
            self.log.scalar("loss/test", result.loss, epoch)
            self.log.scalar("acc/test_top1", result.top1, epoch)
            self.log.scalar("acc/test_top5", result.top5, epoch)
            self.log.scalar("acc/test_top1_best", position.best_prec1, epoch)
            row |= {"test_loss": result.loss, "test_top1": result.top1, "test_top5": result.top5}
        self.log.epoch_row({**row, "best": position.best_prec1})
        position.epoch, position.progress = epoch + 1, None
        self.save(is_best=is_best)

    def _bar(self, loader: Iterable, text: str, *, total: int, initial: int = 0) -> tqdm:
        hide = None if self.process.is_main else True  # None: hidden unless stderr is a terminal
        return tqdm(loader, desc=text, total=total, initial=initial, unit="batch", leave=False, disable=hide)

    def _stop_wanted(self) -> bool:
        return any(any(row) for row in self.process.gather_ints([int(self.stop())]))

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, *, is_best: bool = False) -> None:
        """Write the checkpoint; every process must call this, and leaves when it is written."""
        rng = self.process.gather(rng_state())
        if self.process.is_main:
            self._write(rng, is_best=is_best)
        self.process.barrier()  # whoever ended before would make torchrun end the one that writes

    def _write(self, rng: list[Any], *, is_best: bool) -> None:
        position = self.position
        state = {
            "epoch": position.epoch,
            "arch": self.options.arch,
            "state_dict": published_state_dict(self.networks.bare),
            "optimizer": self.optimizer.state_dict(),
            "best_prec1": position.best_prec1,
            "options": self.options.to_dict(),
            "training": {
                "options": dict(self.recorded),
                "progress": position.progress.state_dict() if position.progress else None,
                "unread": self._unread.messages,
                "log": self.log.state(),
                "scaler": self.scaler.state_dict() if self.scaler is not None else None,
                "rng": rng,
            },
        }
        if is_best:  # first, lest a kill between the two leave a latest file that claims a best one which is not there
            save_checkpoint(state, self.model_folder / BEST)
        save_checkpoint(state, self.model_folder / LATEST)

    def _hooks(self) -> Hooks:
        return Hooks(
            log=self.log.line,
            trace=self._trace,
            save=lambda _: self.save(),
            should_stop=self.stop,
            describe_nonfinite=self._describe_nonfinite,
            unread=self._unread.note,
        )

    def _trace(self, step: int, lr: float, loss: float, norm: float) -> None:
        total = self.position.epoch * self.num_steps + step
        self.log.scalar("step/lr", lr, total)
        self.log.scalar("step/loss", loss, total)
        self.log.scalar("step/grad_norm", norm, total)

    def _describe_nonfinite(self, step: int, batch: Any, loss: float, norm: float) -> str:
        return describe_nonfinite(
            batch,
            dataset=self.train_set,
            model=self.networks.bare,
            options=self.options,
            folder=self.model_folder,
            process=self.process,
            facts={"epoch": self.position.epoch, "step": step, "loss": loss, "gradient_norm": norm},
        )
