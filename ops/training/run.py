"""A training run: epochs, validation, checkpoints, logs, from the first step or from where a checkpoint left off."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from ops.checkpoint.file import rng_state, save_checkpoint
from ops.checkpoint.weights import published_state_dict
from ops.common.distributed import Process
from ops.common.errors import counted
from ops.common.signals import StopSignals
from ops.data.loader import LoaderError
from ops.dataset import TSNDataSet
from ops.training.epoch import EpochProgress, Hooks, train_one_epoch
from ops.training.log import RunLog, UnreadSamples
from ops.training.resume import BEST, LATEST, Position
from ops.training.settings import Settings
from ops.training.step import Networks, Updater
from ops.training.validation import StopRequestedError, Validation, validate

logger = logging.getLogger(__name__)

_MAX_NAMED = 4


@dataclass(frozen=True)
class Data:
    """The data sets of a run and their loaders; `num_steps` is the number of training batches in an epoch."""

    train_set: TSNDataSet
    val_set: TSNDataSet
    train_loader: DataLoader
    val_loader: DataLoader
    num_steps: int


class Run:
    """Trains from a `Position` to the last epoch, or only validates."""

    def __init__(
        self,
        settings: Settings,
        networks: Networks,
        updater: Updater,
        data: Data,
        *,
        process: Process,
        log: RunLog,
        position: Position,
    ) -> None:
        self.settings, self.networks, self.updater, self.data = settings, networks, updater, data
        self.process, self.log, self.position = process, log, position
        self.last_validation: Validation | None = None
        self._stop = StopSignals()
        self._unread = UnreadSamples(position.unread, log, process)

    def fit(self) -> int | None:
        """Train to the end; return None, or the exit status of a signal that ended the run early (it is saved then)."""
        return self._until_stopped(self._train_all)

    def evaluate(self) -> int | None:
        """Only validate; return the exit status of a signal that ended it early."""
        return self._until_stopped(self._validate)

    def _until_stopped(self, work: Callable[[], Any]) -> int | None:
        try:
            with self._stop:
                work()
        except StopRequestedError:
            return self._stop.exit_status
        finally:
            self.log.close()
        return None

    def _train_all(self) -> None:
        while self.position.epoch < self.settings.schedule.epochs:
            try:
                self._epoch()
            except StopRequestedError:
                self._say_stopped()
                raise
        self._unread.report()

    # --- an epoch -----------------------------------------------------------------------------------------------------

    def _epoch(self) -> None:
        """Train and validate one epoch and save it; StopRequestedError if a signal ended it."""
        position = self.position
        epoch = position.epoch
        self._stop_if_wanted()  # everything so far is saved
        is_saved = position.progress is not None
        progress = position.progress = position.progress or EpochProgress(epoch)
        if progress.step < self.data.num_steps:
            is_saved = False
            self._train(progress)
            self._unread.share()
        result = None
        if self._validates_after(epoch):
            if not is_saved:
                self.save()  # a kill during validation costs no training
            self._stop_if_wanted()
            result = self._validate()
        self._finish_epoch(progress, result)

    def _validates_after(self, epoch: int) -> bool:
        return (epoch + 1) % self.settings.eval_freq == 0 or epoch + 1 == self.settings.schedule.epochs

    def _train(self, progress: EpochProgress) -> None:
        """Train the epoch to its end, or save where something ends it early."""
        settings, data = self.settings, self.data
        data.train_loader.sampler.set_epoch(progress.epoch, progress.step * settings.batch_size)
        try:
            complete = train_one_epoch(
                self.networks,
                self.updater,
                data.train_loader,
                progress=progress,
                num_steps=data.num_steps,
                settings=settings,
                process=self.process,
                hooks=self._hooks(),
            )
        except LoaderError as error:
            self.save()
            saved = f"saved after step {progress.step} of epoch {progress.epoch}; --resume auto continues from there"
            raise LoaderError(f"{error}; {saved}") from error
        if not complete:
            self.save()
            raise StopRequestedError

    def _validate(self) -> Validation:
        data = self.data
        result = validate(
            self.networks,
            data.val_loader,
            num_listed=len(data.val_set),
            settings=self.settings,
            process=self.process,
            hooks=self._hooks(),
        )
        self._unread.share()
        self.log.line(f"Testing Results: Prec@1 {result.top1:.3f} Prec@5 {result.top5:.3f} Loss {result.loss:.5f}")
        self.log.line(f"{result.num_videos} of {counted(result.num_listed, 'video')}")
        self.last_validation = result
        return result

    def _finish_epoch(self, progress: EpochProgress, result: Validation | None) -> None:
        position, epoch, schedule, num_steps = (
            self.position,
            progress.epoch,
            self.settings.schedule,
            self.data.num_steps,
        )
        # While nothing was right yet, the latest counts as best, so that there is one from the first validation on.
        is_best = result is not None and (result.top1 > position.best_prec1 or position.best_prec1 == 0.0)
        row = {
            "epoch": epoch,
            "lr": schedule.step_lr(epoch, num_steps - 1, num_steps),
            "train_loss": progress.losses.avg,
            "train_top1": progress.top1.avg,
            "train_top5": progress.top5.avg,
            "seconds": round(progress.seconds + (result.seconds if result else 0.0), 3),
            "skipped": progress.num_unread,
        }
        self.log.scalar("loss/train", progress.losses.avg, epoch)
        self.log.scalar("acc/train_top1", progress.top1.avg, epoch)
        self.log.scalar("acc/train_top5", progress.top5.avg, epoch)
        self.log.scalar("lr", row["lr"], epoch)
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

    # --- signals ------------------------------------------------------------------------------------------------------

    def _stop_if_wanted(self) -> None:
        if any(any(row) for row in self.process.gather_ints([int(self._stop())])):
            raise StopRequestedError

    def _say_stopped(self) -> None:
        position, latest = self.position, self.settings.model_folder / LATEST
        by = self._stop.received.name if self._stop.received else "another process"
        step = f", step {position.progress.step} of {self.data.num_steps}" if position.progress else ""
        then = f"the same command with --resume auto continues from {latest}"
        if not latest.exists():
            then = "there was nothing to save yet"
        logger.warning("Stopped by %s in epoch %d%s; %s", by, position.epoch, step, then)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, *, is_best: bool = False) -> None:
        """Write the checkpoint; every process must call this, and returns when it is written."""
        rng = self.process.gather(rng_state())
        if self.process.is_main:
            self._write(rng, is_best=is_best)
        self.process.barrier()  # torchrun would end the process that writes if another one ended before

    def _write(self, rng: list[Any], *, is_best: bool) -> None:
        position, settings, scaler = self.position, self.settings, self.updater.scaler
        state = {
            "epoch": position.epoch,
            "arch": settings.options.arch,
            "state_dict": published_state_dict(self.networks.bare),
            "optimizer": self.updater.optimizer.state_dict(),
            "best_prec1": position.best_prec1,
            "options": settings.options.to_dict(),
            "training": {
                "options": settings.recorded(self.data.train_set),
                "progress": position.progress.state_dict() if position.progress else None,
                "unread": self._unread.messages,
                "log": self.log.state(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "rng": rng,
            },
        }
        if is_best:  # first: a kill between the two must not leave a latest file that claims a best one not yet written
            save_checkpoint(state, settings.model_folder / BEST)
        save_checkpoint(state, settings.model_folder / LATEST)

    # --- what happens while an epoch passes ---------------------------------------------------------------------------

    def _hooks(self) -> Hooks:
        return Hooks(
            log=self.log.line,
            trace=self._trace,
            save=self.save,
            should_stop=self._stop,
            unread=self._unread.note,
            name_samples=self._name_samples,
            run_seconds_left=self._seconds_left_after_epoch,
        )

    def _trace(self, step: int, lr: float, loss: float, norm: float) -> None:
        total = self.position.epoch * self.data.num_steps + step
        self.log.scalar("step/lr", lr, total, unit="step")
        self.log.scalar("step/loss", loss, total, unit="step")
        self.log.scalar("step/grad_norm", norm, total, unit="step")

    def _name_samples(self, batch: Any) -> str:
        records = [self.data.train_set.video_list[index] for index in batch.indices.tolist()]
        named = ", ".join(f"{record.path} (line {record.line_number})" for record in records[:_MAX_NAMED])
        more = ", ..." if len(records) > _MAX_NAMED else ""
        return f"epoch {self.position.epoch}, {counted(len(records), 'sample')}: {named}{more}"

    def _seconds_left_after_epoch(self, step_seconds: float) -> float:
        """Of the run, after the epoch under way: training steps, and validations as long as the last one."""
        epoch, epochs = self.position.epoch, self.settings.schedule.epochs
        validation_s = self.last_validation.seconds if self.last_validation else 0.0
        num_validations = sum(self._validates_after(later) for later in range(epoch, epochs))
        return (epochs - epoch - 1) * self.data.num_steps * step_seconds + num_validations * validation_s
