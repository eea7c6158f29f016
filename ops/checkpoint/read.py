"""Reading a checkpoint file that a stranger may have made: data only, nothing in it runs, all of it checked."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops.common.errors import InputError

_ZIP_MAGIC = b"PK\x03\x04"
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class _DType:
    """Stands in for numpy.dtype while unpickling: only plain numbers, whatever the file asks for."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(code) if isinstance(code, str) and re.fullmatch(r"[biuf][1248]", code) else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.dtype is not None and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def _number(kind: Any, data: Any = None) -> int | float | bool:
    """Stands in for numpy's scalar constructor: a plain Python number (old files hold `best_prec1` as float64)."""
    data = data.encode("latin1") if isinstance(data, str) else data
    dtype = getattr(kind, "dtype", None)
    if dtype is None or not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise ValueError("a numpy scalar that is not a plain number")
    return np.frombuffer(data, dtype=dtype)[0].item()


_ALLOWED = [
    (_DType, "numpy.dtype"),
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def read_file(path: str | Path) -> Any:
    """Load what `torch.save` wrote, in its old or its zip format, onto the CPU, as data only.

    Numpy numbers come back as Python numbers. In a zip file the checksum of every part is verified.

    Raises:
        InputError: no such file, not such a file, damaged, or it asks for anything but data.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    if size == 0:
        raise InputError(f"{path} is empty, not a checkpoint")
    if magic == _ZIP_MAGIC:
        _check_zip(path, size)
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside of old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise nearly every kind
        raise InputError(_explain(path, error)) from error


def _check_zip(path: Path, size: int) -> None:
    """PyTorch reads a zip file's parts without looking at their checksums, and would unpack a zip bomb."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise InputError(f"{path} is a compressed archive, not a checkpoint: torch.save never compresses")
            if sum(part.file_size for part in parts) > size:
                raise InputError(f"{path} is damaged: it claims more data than it holds")
            # torch.serialization.set_crc32_options(False) writes zeros for all of them.
            bad = archive.testzip() if any(part.CRC for part in parts) else None
    except InputError:
        raise
    except Exception as error:  # zipfile raises half a dozen kinds for a damaged directory
        raise InputError(f"{path} is cut short or damaged{_reason(error)}") from error
    if bad is not None:
        raise InputError(f"{path} is damaged: the checksum of its part {bad} does not match")


def _explain(path: Path, error: Exception) -> str:
    text = str(error)
    if "weights_only" in text or "Weights only" in text:
        refused = _REFUSED_GLOBAL.search(text)
        if refused:
            return f"{path} asks for {refused[1]}, which is code and not data: refused, and nothing was run"
        return f"{path} is not a checkpoint of plain data, or it is damaged"
    return f"{path} is not a checkpoint, or it is damaged{_reason(error)}"


def _reason(error: Exception) -> str:
    """The first line of the message as a suffix (a colon and why), if that is a sentence."""
    line = (str(error).strip().splitlines() or [""])[0][:200]
    return f": {line}" if " " in line else ""


def checked_state_dict(path: str | Path, data: Any) -> dict[str, Tensor]:
    """The weights in what a file held: under `state_dict`, or the whole of it.

    Raises:
        InputError: no weights, or values that are not plain tensors with all their elements in the file.
    """
    if isinstance(data, Mapping) and isinstance(data.get("state_dict"), Mapping):
        data = data["state_dict"]
    if not isinstance(data, Mapping) or not data:
        raise InputError(f"{path} holds no state_dict; a checkpoint is a dict with one, or is one")
    storages: dict[int, int] = {}
    for key, value in data.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            shown = key if isinstance(key, str) else type(key).__name__
            raise InputError(f"{path} holds no state_dict: {shown!r} is {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise InputError(f"{path}: {key} is not a plain tensor with data")
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        if value.numel() * value.element_size() > storage.nbytes():
            raise InputError(f"{path}: {key} claims {value.numel()} elements, more than the file holds")
    if sum(storages.values()) > Path(path).stat().st_size:  # PyTorch enlarges a storage to what a tensor claims
        raise InputError(f"{path} is damaged: its tensors claim more data than it holds")
    return {str(key): value.detach() for key, value in data.items()}
