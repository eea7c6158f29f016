"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ops.common.errors import InputError

_TEMP_PREFIX = ".tmp-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota or file size limit used up


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and is removed when it raises.

    The temporary file lies in the same folder and its name ends with the whole name of `path`, for writers that look at
    the extension. Data and folder are flushed to disk before and after the rename (`os.replace`), so that a crash
    leaves the old file or the new one. Temporary files of the same file whose writers were killed are removed.
    Permissions follow the umask; a link is followed; a device (/dev/stdout) is written to directly.

    Raises:
        InputError: the folder does not exist or cannot be written to, or the disk is full. The old file stays.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # replacing a link would cut it off from what it leads to
    if target.is_dir():
        raise InputError(f"{path} is a folder; give the path of a file")
    if target.exists() and not target.is_file():
        with _explain_full_disk(path):
            yield target
        return

    _remove_leftovers(target)
    temp = target.with_name(f"{_TEMP_PREFIX}{os.getpid()}-{target.name}")
    try:
        temp.touch()
    except OSError as error:
        raise InputError(f"cannot write {path}: {os.strerror(error.errno)} ({target.parent})") from error
    try:
        with _explain_full_disk(path):
            yield temp
            flush_to_disk(temp)
            os.replace(temp, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder
        flush_to_disk(target.parent)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file or nothing; errors as `atomic_path`."""
    with atomic_path(path) as temp:
        temp.write_bytes(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file, line ends as they are, or nothing; errors as `atomic_path`."""
    atomic_write_bytes(path, text.encode())


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all; a missing folder is made, bytes of odd file names stay. InputError."""
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _explain_full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk into one line that names the file; other errors may be about another file and pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise InputError(
                f"{path}: {os.strerror(error.errno)} while writing; free some space (an older file there is unchanged)"
            ) from error
        raise


def _remove_leftovers(target: Path) -> None:
    """Delete temporary files of `target` whose writers were killed: their names hold a process that is gone."""
    for leftover in target.parent.glob(f"{_TEMP_PREFIX}*-{glob.escape(target.name)}"):
        writer = leftover.name.removeprefix(_TEMP_PREFIX).split("-")[0]
        with contextlib.suppress(OSError):
            if writer.isdecimal() and not _is_running(int(writer)):
                leftover.unlink()


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def flush_to_disk(path: Path) -> None:
    """Wait until a file's data, or a folder's names, are on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path, hint: str) -> None:
    """Find out now, and not after the first epoch, whether files can be written.

    Raises:
        InputError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}; {hint}") from error
