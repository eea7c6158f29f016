"""A streaming network in one .onnx file, with everything that the demo has to know about it: all that a board needs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from online_demo.network import FRAME_RATE, THRESHOLD, NetworkInfo
from ops.common.errors import InputError

EXPORT_COMMAND = "python -m online_demo.compile --weights CHECKPOINT -o NAME.onnx"


def check_torch() -> None:
    """Raise InputError where PyTorch is missing: for a checkpoint, and for what compares with it."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "checkpoints and the backends torch and tvm need PyTorch: pip install -r requirements.txt; or run, on a "
            f"machine that has it, {EXPORT_COMMAND}, and here --weights NAME.onnx"
        )


def import_onnxruntime() -> Any:
    """Import the package, or raise InputError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX Runtime is not installed ({error}): pip install -r requirements-demo.txt, or use --backend torch "
            "with a checkpoint"
        ) from None
    return onnxruntime


def open_session(path: Path, threads: int | None = None) -> Any:
    """ONNX Runtime's session of a file, on the CPU; InputError if there is none, or it is damaged."""
    ort = import_onnxruntime()
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, none of them public
        raise InputError(f"{path}: ONNX Runtime cannot load it ({error}); export it again: {EXPORT_COMMAND}") from None


def describe_session(session: Any, path: Path) -> NetworkInfo:
    """What the file says about its network.

    Raises:
        InputError: a file of something else than a streaming network.
    """
    frame, *buffers = session.get_inputs()
    recorded = session.get_modelmeta().custom_metadata_map
    try:
        values = {name: json.loads(recorded[name]) for name in ("class_names", "input_size", "scale_size")}
        return NetworkInfo(
            class_names=tuple(values["class_names"]),
            input_size=values["input_size"],
            scale_size=values["scale_size"],
            normalization=json.loads(recorded["normalization"]),
            buffer_shapes=tuple(tuple(buffer.shape) for buffer in buffers),
            frame_rate=json.loads(recorded.get("frame_rate", "null")) or FRAME_RATE,
            threshold=json.loads(recorded.get("threshold", str(THRESHOLD))),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: holds no streaming network for this demo ({frame.name} {frame.shape}, {error!r}); export one: "
            f"{EXPORT_COMMAND}"
        ) from None
