"""Code that TVM compiled."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

from online_demo.backends.base import State
from online_demo.backends.tvm_build import cached_library, import_tvm
from online_demo.backends.tvm_runtime import Library
from online_demo.model import DemoModel
from ops.common.errors import InputError


class TvmBackend:
    """A `Backend`. path: a library of online_demo/compile.py; by default built for this CPU and kept."""

    name = "tvm"

    def __init__(self, model: DemoModel, *, threads: int | None = None, path: Path | None = None) -> None:
        if threads:
            os.environ["TVM_NUM_THREADS"] = str(threads)  # read when TVM is imported
        import_tvm()
        self._library = _open_library(path or cached_library(model))
        self._shapes = model.info.buffer_shapes
        self._lock = threading.Lock()  # a virtual machine runs one call at a time

    def init_state(self) -> State:
        return self._library.zeros(self._shapes)

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        with self._lock:
            scores, state = self._library.step(frame, state)
        return scores[0], state


def _open_library(path: Path) -> Library:
    if not path.is_file():
        raise InputError(f"{path}: no such library; make it with python -m online_demo.compile")
    try:
        return Library(path)
    except (OSError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"{path}: TVM cannot load it ({reason}); was it compiled for this machine?") from None
