"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ops.common.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows: there, temporary files of killed runs stay until somebody deletes them
    fcntl = None

_TEMP_PREFIX = ".tmp-"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: OSError) -> bool:
    """Whether the error says that disk, quota or file size limit is used up."""
    return error.errno in _NO_SPACE


def is_temporary(path: str | Path) -> bool:
    """Whether the name is one that `atomic_path` gives to an unfinished file."""
    return Path(path).name.startswith(_TEMP_PREFIX)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and is removed when it raises.

    The temporary file lies in the same folder and its name ends with the whole name of `path`, so that writers which
    look at the extension do the right thing. Data and folder are flushed to disk before and after the rename
    (`os.replace`), so that a crash leaves the old file or the new one. What a killed process left behind of the same
    file is removed. Permissions follow the umask; a link is followed; a device (/dev/stdout) is written to directly.

    Raises:
        InputError: the folder does not exist or cannot be written to, or the disk is full. The old file stays.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))  # replacing a link would cut it off from what it leads to
    if target.is_dir():
        raise InputError(f"{path} is a folder; give the path of a file")
    if target.exists() and not target.is_file():
        with _clear_errors(path):
            yield target
        return

    _remove_leftovers(target)
    temp, lock = _create_temporary(target, path)
    try:
        with _clear_errors(path):
            yield temp
            flush_to_disk(temp)
            os.replace(temp, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    finally:
        os.close(lock)
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
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into one line that names the file; other errors may be about another file and pass."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise InputError(
                f"{path}: {os.strerror(error.errno)} while writing; free some space (an older file there is unchanged)"
            ) from error
        raise


def _create_temporary(target: Path, shown: Path) -> tuple[Path, int]:
    """Create an empty temporary file beside `target`; return it and a descriptor that holds its lock."""
    while True:
        temp = target.with_name(f"{_TEMP_PREFIX}{secrets.token_hex(4)}-{target.name}")
        try:
            descriptor = os.open(temp, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"cannot write {shown}: {os.strerror(error.errno)} ({target.parent})") from error
        if fcntl is not None:
            with contextlib.suppress(OSError):  # no locks on this file system
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:  # another process took it for a leftover before we locked it
                os.close(descriptor)
                continue
        return temp, descriptor


def _remove_leftovers(target: Path) -> None:
    """Delete temporary files of `target` that no living process holds: their writers were killed."""
    if fcntl is None:
        return
    ending = f"-{target.name}"
    try:
        names = os.listdir(target.parent)
    except OSError:
        return  # creating the new file says what is wrong with the folder
    for name in names:
        if not (name.startswith(_TEMP_PREFIX) and len(name) == len(_TEMP_PREFIX) + 8 + len(ending)):
            continue
        if not name.endswith(ending):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(target.parent / name, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its writer lives
                os.unlink(target.parent / name)
            finally:
                os.close(descriptor)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, whoever wrote it, or a folder's names are on the disk itself."""
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
