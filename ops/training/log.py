"""What a run leaves in its log folder: log.csv, epochs.csv, args.txt and TensorBoard events.

A checkpoint carries how long each of these files was. A resumed run cuts them back to that and goes on writing, so that
nothing is missing and nothing is there twice, wherever the run was killed.
"""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ops.common.errors import InputError
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
    "nonfinite",  # steps left out for a loss or gradient that was not finite
)
_LINES, _EPOCHS, _ARGS, _EVENTS = "log.csv", "epochs.csv", "args.txt", "events.out.tfevents.*"
_TAIL_BYTES = 4096


class RunLog:
    """The log files of a run.

    log.csv holds the lines that the run prints, as published; epochs.csv a row of numbers for each epoch, with empty
    fields where the epoch had no validation.

    Args:
        folder: None writes nothing.
        resume: `state()` of the checkpoint that the run goes on from; None starts new files. What another run left in
            the folder is moved into a subfolder `earlier-1`, `earlier-2`, ...
        echo: print the lines, too.
    """

    def __init__(self, folder: Path | None, *, resume: Mapping[str, Any] | None = None, echo: bool = True) -> None:
        self.folder = folder
        self._echo = echo
        self._events = None
        if folder is None:
            return
        with _clear_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if resume is None or not _cut_back(folder, resume):
                if resume is not None:
                    logger.warning("the log files that the checkpoint knows are not in %s: the log starts anew", folder)
                _move_away(folder)
            self._lines = open(folder / _LINES, "a", encoding="utf-8")  # noqa: SIM115
            self._epochs = open(folder / _EPOCHS, "a", encoding="utf-8", newline="")  # noqa: SIM115
            self._rows = csv.DictWriter(self._epochs, EPOCH_COLUMNS)
            if self._epochs.tell() == 0:
                self._rows.writeheader()
            self._events = _open_events(folder)

    def line(self, text: str) -> None:
        """Print a line and keep it in log.csv."""
        if self._echo:
            tqdm.write(text)  # prints above a progress bar, if there is one
            sys.stdout.flush()
        if self.folder is None:
            return
        with _clear_errors(self.folder):
            self._lines.write(text + "\n")
            self._lines.flush()

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to a TensorBoard curve."""
        if self._events is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        event = Event(summary=scalar(tag, value), step=step, wall_time=time.time())
        with _clear_errors(self.folder):
            self._events.write_event(event)

    def epoch_row(self, row: Mapping[str, Any]) -> None:
        """Add a row to epochs.csv; columns that it lacks stay empty."""
        if self.folder is None:
            return
        with _clear_errors(self.folder):
            self._rows.writerow(row)
            self._epochs.flush()

    def describe(self, options: Mapping[str, Any], note: str, **facts: Any) -> None:
        """Add options, versions and the like to args.txt, a `name: JSON value` a line."""
        if self.folder is None:
            return
        rows = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "note": note, **facts, **_environment(), **options}
        text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in rows.items())
        with _clear_errors(self.folder), open(self.folder / _ARGS, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def state(self) -> dict[str, list[int]]:
        """Write everything to disk, and tell how long each file is and what its end looks like."""
        if self.folder is None:
            return {}
        with _clear_errors(self.folder):
            for file in (self._lines, self._epochs, self._events):
                file.flush()
            paths = [self.folder / _LINES, self.folder / _EPOCHS, *sorted(self.folder.glob(_EVENTS))]
            for path in paths:
                flush_to_disk(path)
            return {path.name: [path.stat().st_size, _tail_checksum(path, path.stat().st_size)] for path in paths}

    def close(self) -> None:
        if self._events is None:
            return
        events, self._events = self._events, None
        with _clear_errors(self.folder), contextlib.ExitStack() as every:  # each is closed, whatever another raises
            for file in (self._lines, self._epochs, events):
                every.callback(file.close)


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


def _open_events(folder: Path) -> Any:
    # The writer that SummaryWriter puts behind a queue: written to directly, the file's length is known at any time.
    from tensorboardX.event_file_writer import EventsWriter

    # Names hold the time in seconds only; two runs in one second must not share a file.
    return EventsWriter(str(folder / "events"), f".{os.getpid()}.{time.monotonic_ns() % 10**9:09d}")


def _tail_checksum(path: Path, size: int) -> int:
    with open(path, "rb") as file:
        file.seek(max(0, size - _TAIL_BYTES))
        return zlib.crc32(file.read(min(size, _TAIL_BYTES)))


def _cut_back(folder: Path, state: Mapping[str, Any]) -> bool:
    """Cut the files to what they were; False, and nothing changed, if they are not the same files."""
    sizes = {}
    for name, entry in state.items():
        if not _is_log_record(name, entry):
            return False
        path, (size, checksum) = folder / name, entry
        if not path.is_file() or path.stat().st_size < size or _tail_checksum(path, size) != checksum:
            return False
        sizes[path] = size
    if not sizes:
        return False
    for path in folder.glob(_EVENTS):
        if path not in sizes:
            path.unlink()  # events from after the checkpoint: the run is about to write them again
    for path, size in sizes.items():
        os.truncate(path, size)
    return True


def _is_log_record(name: object, entry: object) -> bool:
    """Whether this is a log file's name, length and checksum: a stranger's checkpoint must not cut any other file."""
    known = isinstance(name, str) and Path(name).name == name
    known = known and (name in (_LINES, _EPOCHS) or fnmatch.fnmatchcase(name, _EVENTS))
    pair = isinstance(entry, (list, tuple)) and len(entry) == 2
    return known and pair and all(type(value) is int and value >= 0 for value in entry)


def _move_away(folder: Path) -> None:
    old = [path for path in (folder / _LINES, folder / _EPOCHS, folder / _ARGS) if path.exists()]
    old += sorted(folder.glob(_EVENTS))
    if not old:
        return
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    target = folder / f"earlier-{number}"
    target.mkdir()
    for path in old:
        shutil.move(path, target / path.name)
    logger.warning("the log files of an earlier run were moved to %s", target)


@contextlib.contextmanager
def _clear_errors(folder: Path) -> Iterator[None]:
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
