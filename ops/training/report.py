"""What a run tells at its beginning and end."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from ops.checkpoint.file import Checkpoint
from ops.common.errors import InputError, counted
from ops.common.files import atomic_write_text
from ops.common.signals import StopSignals
from ops.training.epoch import Validation
from ops.training.log import read_epochs
from ops.training.resume import LATEST, Position, check_writable

logger = logging.getLogger(__name__)


def say_where(position: Position, epochs: int, resumed: Checkpoint | None, model_folder: Path) -> None:
    """Where the run begins, and what it overwrites."""
    if position.epoch >= epochs:
        logger.info("%s: %s done, nothing is left of %d", resumed.path, counted(position.epoch, "epoch"), epochs)
    elif resumed is not None:
        step = f", step {position.progress.step}" if position.progress else ""
        logger.info("Resumed from %s at epoch %d%s", resumed.path, position.epoch, step)
    elif (model_folder / LATEST).exists():
        logger.warning("Warning: %s of an earlier run will be overwritten", model_folder / LATEST)


def say_stopped(stop: StopSignals, position: Position, num_steps: int, model_folder: Path) -> None:
    """Where a signal ended the run, and how to go on."""
    by = stop.received.name if stop.received else "another process"
    step = f", step {position.progress.step} of {num_steps}" if position.progress else ""
    latest = model_folder / LATEST
    then = f"the same command with --resume auto goes on from {latest}" if latest.exists() else "nothing to save yet"
    logger.warning("Stopped by %s in epoch %d%s; %s", by, position.epoch, step, then)


def check_plots(folder: str | Path) -> None:
    """Find out now, and not behind the last epoch, whether figures can be drawn and written.

    Raises:
        InputError: they cannot.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plots needs matplotlib: pip install -r requirements.txt")
    check_writable(Path(folder), "see --plots")


def write_plots(
    folder: Path, epochs_file: Path | None, result: Validation | None, class_names: list[str] | None
) -> None:
    """Draw the run's curves, and the last validation's confusion matrix with its per-class table.

    Raises:
        InputError: the figures cannot be drawn or written.
    """
    from ops.evaluation.plots import confusion_png, curves_png, per_class_table

    if epochs_file is not None:
        curves_png(read_epochs(epochs_file), folder / "curves.png")
    if result is not None:
        matrix = result.confusion.numpy()
        confusion_png(matrix, class_names, folder / "confusion.png")
        table = per_class_table(matrix, class_names)
        atomic_write_text(folder / "per_class.txt", table + "\n")
        print(table)
    logger.info("Wrote figures to %s", folder)
