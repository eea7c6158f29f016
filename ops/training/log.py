"""What a run leaves in its log folder: log.csv, epochs.csv, args.txt and TensorBoard events.

A checkpoint carries how long the two csv files were: a resumed run cuts them back to that, and marks the TensorBoard
events after the checkpoint as overwritten, so that nothing is missing and nothing is there twice.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ops.common.distributed import Process
from ops.common.errors import InputError, counted
from ops.common.files import flush_to_disk

logger = logging.getLogger(__name__)

EPOCH_COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "train_top1",
    "train_top5",
    "test_loss",
    "test_top1",
    "test_top5",
    "best",
    "seconds",
    "skipped",  # samples that could not be read
)
_LINES, _EPOCHS, _ARGS, _EVENTS = "log.csv", "epochs.csv", "args.txt", "events.out.tfevents.*"
_RUN_FILES = (_LINES, _EPOCHS, _ARGS, _EVENTS, "steps", "ckpt*.pth.tar")
_STEPS = "steps"  # subfolder of the curves over steps: TensorBoard shows it as a run of its own


class RunLog:
    """The log files of a run.

    log.csv holds the lines that the run prints, as published; epochs.csv a row of numbers for each epoch, with empty
    fields where the epoch had no validation. TensorBoard curves over epochs lie in the folder itself, curves over steps
    in its subfolder `steps`.

    Args:
        folder: None writes nothing.
        resume: `state()` of the checkpoint that the run continues from; None starts new files. What another run left in
            the folder is moved into a subfolder `earlier-1`, `earlier-2`, ...
        start: (epoch, step of the run) at which the run starts or continues.
        checkpoints: folder whose checkpoints are moved with the log files of another run, into an `earlier-N` there.
        echo: print the lines, too.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        resume: Mapping[str, Any] | None = None,
        start: tuple[int, int] = (0, 0),
        checkpoints: Path | None = None,
        echo: bool = True,
    ) -> None:
        self.folder = folder
        self._echo = echo
        self._events: dict[str, _Events] = {}
        if folder is None:
            return
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if resume is None or not _cut_back(folder, resume):
                if resume is not None:
                    logger.warning("the log files that the checkpoint knows are not in %s: the log starts anew", folder)
                _move_aside([folder] if checkpoints is None else [folder, checkpoints])
            self._lines = open(folder / _LINES, "a", encoding="utf-8")  # noqa: SIM115
            self._epochs = open(folder / _EPOCHS, "a", encoding="utf-8", newline="")  # noqa: SIM115
            self._rows = csv.DictWriter(self._epochs, EPOCH_COLUMNS)
            if self._epochs.tell() == 0:
                self._rows.writeheader()
            places = {"epoch": folder, "step": folder / _STEPS}
            for unit, first in zip(places, start, strict=True):
                self._events[unit] = _Events(places[unit], first if resume is not None else None)

    def line(self, text: str) -> None:
        """Print a line and keep it in log.csv."""
        if self._echo:
            tqdm.write(text)  # prints above a progress bar, if there is one
            sys.stdout.flush()
        if self.folder is None:
            return
        with _writing(self.folder):
            self._lines.write(text + "\n")
            self._lines.flush()

    def scalar(self, tag: str, value: float, number: int, *, unit: str = "epoch") -> None:
        """Add a point to a TensorBoard curve over epochs or, with unit 'step', over steps."""
        if self.folder is None:
            return
        with _writing(self.folder):
            self._events[unit].scalar(tag, value, number)

    def epoch_row(self, row: Mapping[str, Any]) -> None:
        """Add a row to epochs.csv; columns that it lacks stay empty."""
        if self.folder is None:
            return
        with _writing(self.folder):
            self._rows.writerow(row)
            self._epochs.flush()

    def describe(self, options: Mapping[str, Any], note: str, **facts: Any) -> None:
        """Add options, versions and the like to args.txt, a `name: JSON value` a line."""
        if self.folder is None:
            return
        rows = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "note": note, **facts, **_environment(), **options}
        text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in rows.items())
        with _writing(self.folder), open(self.folder / _ARGS, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def state(self) -> dict[str, int]:
        """Write everything to disk, and return the length of each csv file."""
        if self.folder is None:
            return {}
        with _writing(self.folder):
            for file in (self._lines, self._epochs, *self._events.values()):
                file.flush()
            paths = [self.folder / _LINES, self.folder / _EPOCHS]
            for path in paths:
                flush_to_disk(path)
            return {path.name: path.stat().st_size for path in paths}

    def close(self) -> None:
        if not self._events:
            return
        files = [self._lines, self._epochs, *self._events.values()]
        self._events = {}
        self.folder, folder = None, self.folder
        with _writing(folder), contextlib.ExitStack() as every:
            for file in files:  # each is closed, whatever another raises
                every.callback(file.close)


class _Events:
    """A TensorBoard event file, written to directly: SummaryWriter's thread would print a traceback when the disk is
    full, and the run would wait for it without end.

    Args:
        first: TensorBoard forgets what earlier files say from this epoch or step on (as `purge_step` asks it to);
            None: there are none.
    """

    def __init__(self, folder: Path, first: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        # Names hold the time in seconds only; two runs in one second must not share a file.
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.monotonic_ns() % 10**9:09d}")
        self.flush, self.close = self._writer.flush, self._writer.close
        if first is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(session_log=start, step=first, wall_time=time.time()))

    def scalar(self, tag: str, value: float, number: int) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._writer.write_event(Event(summary=scalar(tag, value), step=number, wall_time=time.time()))


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
        """A line for each sample."""
        return list(self._seen)

    def note(self, message: str) -> None:
        """Note a sample; only the first process, which writes the log, can log it at once."""
        if self._process.is_main:
            self._add(message)
        else:
            self._here.append(message)

    def share(self) -> None:
        """Give the first process what the others could not read; every process must call this."""
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


def read_epochs(path: str | Path) -> list[dict[str, float | None]]:
    """Rows of an epochs.csv; None where an epoch had no validation.

    Raises:
        InputError: no such file, or not such a file.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [{name: float(value) if value else None for name, value in row.items()} for row in rows]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is not the epochs.csv of a run: {error}") from error


def _cut_back(folder: Path, lengths: Mapping[str, Any]) -> bool:
    """Cut the csv files to the lengths that they had; False, and nothing changed, if they are not the same files."""
    paths = {folder / name: lengths.get(name) for name in (_LINES, _EPOCHS)}
    for path, length in paths.items():
        if not isinstance(length, int) or not path.is_file() or not 0 <= length <= path.stat().st_size:
            return False
    for path, length in paths.items():
        os.truncate(path, length)
    return True


def _move_aside(folders: Sequence[Path]) -> None:
    """Move what another run left in the folders into their subfolders `earlier-N`, with the same N."""
    old = {folder: [path for pattern in _RUN_FILES for path in sorted(folder.glob(pattern))] for folder in folders}
    if not any(old.values()):
        return
    number = 1
    while any((folder / f"earlier-{number}").exists() for folder in folders):
        number += 1
    for folder, paths in old.items():
        if paths:
            target = folder / f"earlier-{number}"
            target.mkdir()
            for path in paths:
                shutil.move(path, target / path.name)
            logger.warning("the files of an earlier run were moved to %s", target)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write the log in {folder}: {error.strerror or error}") from error


def _environment() -> dict[str, Any]:
    """Versions of what computes, and the commit of this program."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "pillow", "av", "tensorboardX"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {"command": sys.argv, "git_commit": git_commit(), "host": platform.node(), "versions": versions}


def git_commit() -> str:
    """Commit of this program, with '+' if files were changed since; 'unknown' outside of a git checkout."""
    project = Path(__file__).resolve().parents[2]

    def ask(*args: str) -> str:
        command = ["git", "-C", str(project), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")) != project:
            return "unknown"
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
