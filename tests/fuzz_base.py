"""What a reader is to tests/fuzz_readers.py, and what its results are compared by."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Value = Any  # plain data that can be compared


@dataclass(frozen=True)
class Reader:
    """One of the project's readers.

    make: write whole files below a folder; returns the relative paths of those to damage. read: (folder, damaged file)
    -> value. problem: (value, value of the whole file) -> what is wrong with its form, None for nothing. weight: its
    share of the cases.
    """

    name: str
    make: Callable[[Path], list[str]]
    read: Callable[[Path, str], Value]
    problem: Callable[[Value, Value], str | None]
    weight: int = 2


def digest(array: np.ndarray | torch.Tensor) -> tuple[tuple[int, ...], str, int]:
    """Shape, type and checksum of an array."""
    array = np.ascontiguousarray(array)
    return tuple(array.shape), str(array.dtype), zlib.crc32(array.tobytes())


def nothing_may_differ(value: Value, whole: Value) -> str:
    """For formats with checksums."""
    return "differs, though the format has checksums"


def anything_goes(value: Value, whole: Value) -> None:
    """For formats that cannot tell: the reader itself has checked all that can be."""
