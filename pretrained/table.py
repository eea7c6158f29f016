"""The published checkpoints as data (`zoo.json`), and where their files are on this machine."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
from pathlib import Path

from ops.common.errors import InputError
from pretrained.checksums import verify_recorded

FOLDER = Path(__file__).resolve().parent
_EXTENSIONS = (".pth.tar", ".pth")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to evaluate: `options` are those of test_models.py."""

    name: str
    text: str
    options: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """Published accuracies, in per cent, with `segments` frames a clip."""

    protocol: Protocol
    segments: int
    top1: float
    top5: float | None = None

    def __str__(self) -> str:
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.1f} %"
        return f"top-1 {self.top1:.1f} %{top5} ({self.protocol.text}, {self.segments} segments)"


@dataclasses.dataclass(frozen=True)
class Row:
    """One published model; `file` and `url` are None where its weights were not released."""

    name: str
    dataset: str
    modality: str
    model: str
    file: str | None
    url: str | None
    results: tuple[Result, ...]

    def released_file(self) -> str:
        """Its file name; InputError where there is none."""
        if self.file is None:
            raise InputError(f"{self.name}: only the figure of this model was published, not its weights")
        return self.file

    def names(self) -> tuple[str, ...]:
        """All its names: the short one, its file, and that without extension."""
        if self.file is None:
            return (self.name,)
        return (self.name, self.file, *(self.file[: -len(end)] for end in _EXTENSIONS if self.file.endswith(end)))


@functools.cache
def load_table() -> tuple[Row, ...]:
    """All rows, in the order of the published table."""
    data = json.loads((FOLDER / "zoo.json").read_text(encoding="utf-8"))
    protocols = {
        name: Protocol(name, entry["text"], tuple(entry["options"])) for name, entry in data["protocols"].items()
    }
    rows = []
    for entry in data["models"]:
        results = tuple(Result(**{**result, "protocol": protocols[result["protocol"]]}) for result in entry["results"])
        rows.append(Row(**{**entry, "results": results}))
    return tuple(rows)


def find_row(name: str) -> Row:
    """The row of a short name or a file name.

    Raises:
        InputError: no such row; names the nearest ones.
    """
    for row in load_table():
        if name in row.names():
            return row
    choices = [row.name for row in load_table()]
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.4) or choices[:3]
    raise InputError(
        f"no published checkpoint is called {name!r}; perhaps {', '.join(near)} "
        "(python -m pretrained.fetch --list shows all)"
    )


def files_folder() -> Path:
    """Folder of the fetched files: $TSM_PRETRAINED, else pretrained/files in the project."""
    given = os.environ.get("TSM_PRETRAINED")
    return Path(given).expanduser() if given else FOLDER / "files"


def local_path(weights: str | Path, folder: Path | None = None) -> Path:
    """The file that `--weights` means: one on disk, or a fetched one by its name in the table.

    Published commands say `pretrained/TSM_....pth`; that finds the fetched file too.

    Raises:
        InputError: neither a file nor a name in the table, published but not fetched yet, or changed since it was.
    """
    path = Path(weights)
    if path.exists():
        verify_recorded(path)
        return path
    elsewhere = path.parent not in (Path("."), Path("pretrained"))
    rows = [] if elsewhere else [row for row in load_table() if path.name in row.names()]
    if not rows:
        raise InputError(
            f"{weights}: no such file, and no published checkpoint of that name "
            "(python -m pretrained.fetch --list shows them)"
        )
    return fetched_path(rows[0], folder or files_folder())


def fetched_path(row: Row, folder: Path) -> Path:
    """Path of a row's fetched file; InputError where it has not been fetched, or changed since."""
    path = folder / row.released_file()
    if not path.is_file():
        raise InputError(f"{path} is not there yet: run python -m pretrained.fetch {row.name}")
    verify_recorded(path)
    return path
