"""Downloading a large file: over https, resumed where it broke off, checked, and in place at once or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from ops.common.errors import InputError
from ops.common.files import is_disk_full
from pretrained.checksums import Received, received_file
from pretrained.transfer import Transfer, check_url

try:
    import fcntl
except ImportError:  # not on Windows: there, do not fetch the same file twice at once
    fcntl = None

MAX_BYTES = 4 << 30
TIMEOUT_S = 30.0


def download(
    url: str,
    target: Path,
    *,
    expected_size: int | None = None,
    expected_sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Received:
    """Fetch `url` to `target`. What arrived before a break stays in `target`.part and is gone on from.

    Raises:
        InputError: host not reachable, an answer that is no file, wrong size or checksum, too large, disk full. The
            target is then as it was.
    """
    check_url(url)
    part = target.with_name(target.name + ".part")
    notes = part.with_name(part.name + ".json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            _lock(file, part)
            try:
                Transfer(url, file, notes, expected_size, max_bytes, timeout_s).run()
                file.flush()
                os.fsync(file.fileno())
                received = received_file(part)
                _check(url, part, received, expected_size, expected_sha256)
                os.replace(part, target)
            finally:
                if part.exists() and file.tell() == 0:
                    part.unlink()
                if not part.exists():
                    notes.unlink(missing_ok=True)
    except OSError as error:
        hint = "; free some space and run again to go on" if is_disk_full(error) else ""
        raise InputError(f"{error.filename or target}: {error.strerror or error}{hint}") from error
    return received


def _lock(file: IO[bytes], part: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"another process is fetching {part}") from error
    if not part.exists() or not os.path.samestat(part.stat(), os.fstat(file.fileno())):
        raise InputError(f"another process has just fetched {part}; run again")


def _check(url: str, part: Path, received: Received, size: int | None, sha256: str | None) -> None:
    problem = None
    with part.open("rb") as file:
        start = file.read(512).lstrip()[:1]
    if received.size == 0:
        problem = "the server sent an empty file"
    elif start == b"<":
        problem = "the server sent a web page, not a checkpoint"
    elif size is not None and received.size != size:
        problem = f"wrong size: {received.size} bytes arrived, {size} expected"
    elif sha256 is not None and received.sha256 != sha256:
        problem = f"wrong checksum: sha256 {received.sha256} arrived, {sha256} expected"
    if problem:
        part.unlink()
        raise InputError(f"{url}: {problem}; nothing was kept")
