"""What went wrong in a run that goes on, or just before it stops: unreadable samples, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ops.checkpoint.file import ModelOptions, published_state_dict, save_checkpoint
from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.dataset import TSNDataSet
from ops.training.log import RunLog

_MAX_NAMED = 4
_MAX_FILES = 3


class UnreadSamples:
    """The samples that a run left out because they could not be read; each is logged once.

    Args:
        messages: those that the run, if resumed, has already logged.
    """

    def __init__(self, messages: Sequence[str], log: RunLog, process: Process) -> None:
        self._seen = dict.fromkeys(messages)  # a set that keeps its order
        self._here: list[str] = []
        self._log, self._process = log, process

    @property
    def messages(self) -> list[str]:
        """A line each."""
        return list(self._seen)

    def note(self, message: str) -> None:
        """Take a sample down; only the first process, which writes the log, can log it at once."""
        if self._process.is_main:
            self._add(message)
        else:
            self._here.append(message)

    def share(self) -> None:
        """Let the first process know what the others could not read; every process must call this."""
        for messages in self._process.gather(self._here):
            for message in messages:
                self._add(message)
        self._here = []

    def report(self) -> None:
        """Log how many there were, if any."""
        if self._seen:
            first = next(iter(self._seen))
            self._log.line(f"{counted(len(self._seen), 'unreadable video')} left out; the first: {first}")

    def _add(self, message: str) -> None:
        if message not in self._seen:
            self._seen[message] = None
            self._log.line(f"Left out: {message}")


def describe_nonfinite(
    batch: Any,
    *,
    dataset: TSNDataSet,
    model: nn.Module,
    options: ModelOptions,
    folder: Path,
    process: Process,
    facts: Mapping[str, Any],
) -> str:
    """Name a batch's samples, and save it in `folder` with the weights that it met, for three batches at most.

    Args:
        facts: epoch, step, loss, gradient_norm.
    """
    epoch, step = facts["epoch"], facts["step"]
    records = [dataset.video_list[index] for index in batch.indices.tolist()]
    named = ", ".join(f"{record.path} (line {record.line_number})" for record in records[:_MAX_NAMED])
    text = f"epoch {epoch}, {counted(len(records), 'sample')}: {named}{', ...' if len(records) > _MAX_NAMED else ''}"
    rank = f"_rank{process.rank}" if process.world_size > 1 else ""
    path = folder / f"nonfinite_epoch{epoch}_step{step}{rank}.pth.tar"
    if len(list(folder.glob(f"nonfinite_*{rank}.pth.tar"))) >= _MAX_FILES:
        return text
    state = {
        **facts,
        "samples": [f"{dataset.where(record)}: {record.path}" for record in records],
        "clips": batch.clips.clone(),  # torch.save writes whole storages
        "labels": batch.labels,
        "arch": options.arch,
        "options": options.to_dict(),
        "state_dict": published_state_dict(model),
    }
    try:
        save_checkpoint(state, path)
    except InputError as error:
        return f"{text}; not saved: {error}"
    return f"{text}; batch and weights are in {path}"
