"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from online_demo.backends.base import State
from online_demo.backends.cache import cached_file, versions
from ops.common.errors import InputError

if TYPE_CHECKING:
    from online_demo.model import DemoModel


class OnnxRuntimeBackend:
    """A `Backend`. path: a file of `export_stream`; by default the model's own, exported once and kept."""

    name = "onnxruntime"

    def __init__(self, model: DemoModel, *, threads: int | None = None, path: Path | None = None) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        path = path or exported_onnx(model)
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes, none of them public
            raise InputError(f"{path}: ONNX Runtime cannot load it ({error}); delete it to export it again") from None
        self._inputs = [item.name for item in self._session.get_inputs()]
        self._shapes = model.buffer_shapes

    def init_state(self) -> State:
        return [np.zeros(shape, np.float32) for shape in self._shapes]

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        scores, *state = self._session.run(None, dict(zip(self._inputs, [frame, *state], strict=True)))
        return scores[0], state


def import_onnxruntime() -> Any:
    """Import the package, or raise InputError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX Runtime is not installed ({error}): pip install -r requirements-demo.txt, or use --backend torch"
        ) from None
    return onnxruntime


def exported_onnx(model: DemoModel) -> Path:
    """The model's ONNX file, exported once and then taken from the cache."""
    from ops.network.onnx_export import export_stream

    depends_on = {
        "kind": "onnx",
        **model.identity,
        "class_names": model.class_names,
        "versions": versions("torch", "onnx", "onnxscript"),
    }
    return cached_file(
        model.stem, ".onnx", depends_on, lambda path: export_stream(model.stream, path, class_names=model.class_names)
    )
