"""8-bit weights and activations for ONNX Runtime: static quantisation, calibrated on a user's own clips."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from online_demo.backends.base import Backend, compare
from online_demo.backends.cache import cached_file, versions
from online_demo.backends.onnx_backend import OnnxRuntimeBackend
from online_demo.camera.sources import open_source, used_frames
from ops.common.errors import InputError

if TYPE_CHECKING:
    from online_demo.model import DemoModel

MAX_FRAMES = 300  # of all clips together; a third of each is kept for the comparison
_MIN_FRAMES = 6


def quantized_backend(
    model: DemoModel, exact: Backend, clips: Sequence[str], *, threads: int | None, report: Callable[[str], None]
) -> OnnxRuntimeBackend:
    """Quantise on the first two thirds of each clip, and report how well the last thirds agree with `exact`.

    Raises:
        InputError: a clip that cannot be read or is too short.
    """
    if importlib.util.find_spec("onnx") is None:
        raise InputError("--int8 needs onnx: pip install -r requirements-export.txt")
    inputs = read_clips(model, clips)  # (F, 1, 3, H, W) each
    calibration = [frames[: len(frames) * 2 // 3] for frames in inputs]
    held_out = [frames[len(frames) * 2 // 3 :] for frames in inputs]
    digest = hashlib.sha256()
    for frames in calibration:
        digest.update(np.int64(len(frames)).tobytes() + frames.tobytes())
    depends_on = {
        "kind": "onnx-int8",
        **model.identity,
        "clips": digest.hexdigest(),
        "versions": versions("torch", "onnx", "onnxruntime"),
    }
    path = cached_file(model.stem, ".int8.onnx", depends_on, lambda out: quantize(model, exact, calibration, out))
    backend = OnnxRuntimeBackend(model, threads=threads, path=path)
    backend.name = "onnxruntime int8"
    found = compare(exact, backend, held_out)
    report(
        f"int8: same best class as float on {found.num_same} of {found.num_frames} held-out frames, scores differ by "
        f"{np.median(found.differences):.2f} of the largest (median); {path.stat().st_size / 1e6:.1f} MB"
    )
    return backend


def read_clips(model: DemoModel, names: Sequence[str]) -> list[np.ndarray]:
    """Network inputs (F, 1, 3, H, W) of each clip's frames that the demo would use, as many as MAX_FRAMES allows."""
    share = max(_MIN_FRAMES, MAX_FRAMES // len(names))
    clips = []
    for name in names:
        if name != "sample" and not Path(name).exists():
            raise InputError(f"--int8 {name}: no such video file or folder of frames")
        source = open_source(name)
        if source.live:
            raise InputError(f"--int8 {name}: calibration needs a video file or a folder of frames")
        images = used_frames(source, model.info.frame_rate)
        frames = [model.info.preprocess(image) for image in itertools.islice(images, share)]
        if len(frames) < _MIN_FRAMES:
            raise InputError(f"--int8 {name}: {len(frames)} frames are too few, calibration needs {_MIN_FRAMES}")
        clips.append(np.stack(frames))
    return clips


def quantize(model: DemoModel, exact: Backend, clips: Sequence[np.ndarray], path: Path) -> None:
    """Write the quantised step: QDQ, weights per channel, ranges from the clips with float's own state."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._inputs = calibration_inputs(model, exact, clips)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._inputs, None)

    logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger().level))
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / "prepared.onnx"
        quant_pre_process(str(model.onnx_path), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def calibration_inputs(
    model: DemoModel, exact: Backend, clips: Sequence[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the step, frame after frame, each clip from a state of zeros."""
    names = ["frame", *(f"shift_in_{index}" for index in range(len(model.info.buffer_shapes)))]
    for frames in clips:
        state = exact.init_state()
        for frame in frames:
            yield dict(zip(names, [frame, *state], strict=True))
            _, state = exact.step(frame, state)
