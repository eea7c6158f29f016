"""ONNX Runtime on the CPU: needs no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from online_demo.backends.base import State
from online_demo.model import DemoModel
from online_demo.onnx_file import open_session


class OnnxRuntimeBackend:
    """A `Backend`. path: another .onnx file than the model's own, such as a quantised one."""

    name = "onnxruntime"

    def __init__(self, model: DemoModel, *, threads: int | None = None, path: Path | None = None) -> None:
        is_open = path is None and model.session is not None
        self._session = model.session if is_open else open_session(path or model.onnx_path, threads)
        self._inputs = [item.name for item in self._session.get_inputs()]
        self._shapes = model.info.buffer_shapes

    def init_state(self) -> State:
        return [np.zeros(shape, np.float32) for shape in self._shapes]

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        scores, *state = self._session.run(None, dict(zip(self._inputs, [frame, *state], strict=True)))
        return scores[0], state
