"""Size and sha256 of the files on this machine, recorded when each was first seen: none were published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from ops.common.errors import InputError
from ops.common.files import atomic_write_text

CHECKSUMS = "checksums.json"  # beside the files


@dataclasses.dataclass(frozen=True)
class Received:
    """What a file is: size in bytes and sha256 in hex."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"sha256 {self.sha256} ({self.size} bytes)"


def received_file(path: Path) -> Received:
    """Size and checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return Received(file.tell(), digest.hexdigest())


def read_checksums(folder: Path) -> dict[str, Received]:
    """File name -> what was recorded of it; InputError where the record is damaged."""
    path = folder / CHECKSUMS
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {file: Received(int(entry["size"]), str(entry["sha256"])) for file, entry in data.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}); delete it to record the checksums anew") from error


def record_checksum(folder: Path, file: str, received: Received) -> None:
    """Add a file to the record of its folder."""
    checksums = {name: dataclasses.asdict(entry) for name, entry in read_checksums(folder).items()}
    checksums[file] = dataclasses.asdict(received)
    atomic_write_text(folder / CHECKSUMS, json.dumps(checksums, indent=2, sort_keys=True) + "\n")


def verify_recorded(path: Path) -> None:
    """Check a file that has a record beside it; InputError where it has changed since.

    PyTorch's old file format, which published files have, carries no checksum of its own.
    """
    entry = read_checksums(path.parent).get(path.name) if path.is_file() else None
    if entry is not None:
        received = received_file(path)
        if received != entry:
            raise InputError(
                f"{path} is not the file that was recorded: {received} instead of {entry}; delete it to fetch it "
                f"again, or its entry in {path.parent / CHECKSUMS} to keep it"
            )
