"""What can run the network, a frame at a time, behind one small interface."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from online_demo.backends.cache import cached_file, load_kept, versions
from online_demo.backends.tvm_runtime import MAX_DIFFERENCE, Library
from online_demo.model import DemoModel
from ops.common.errors import InputError

BACKENDS = ("onnxruntime", "torch", "tvm")
NUM_CHECK_FRAMES = 4

# The buffers of one stream, in the backend's own form; steps hand back a new one and leave the old as it was.
State = Any


class Backend(Protocol):
    """Runs the steps of any number of streams; one step at a time is safe from several threads."""

    name: str

    def init_state(self) -> State:
        """Zeros: the state of a stream before its first frame."""

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Normalised float32 (1, 3, H, W) -> scores float32 (K,), and the state after this frame."""


class TorchBackend:
    """Eager PyTorch: needs nothing else, and is what the others are checked against."""

    name = "torch"

    def __init__(self, model: DemoModel, *, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._stream, self._size = model.stream, model.input_size

    def init_state(self) -> State:
        return self._stream.init_state(1, self._size, self._size)

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        scores, state = self._stream.step(torch.from_numpy(frame), state)
        return scores[0].numpy(), state


class OnnxRuntimeBackend:
    """ONNX Runtime on the CPU. path: a file of `export_onnx`; by default the model's own, exported once and kept."""

    name = "onnxruntime"

    def __init__(self, model: DemoModel, *, threads: int | None = None, path: Path | None = None) -> None:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        if path is not None:
            self._session = _open_session(path, options)
        else:
            self._session = load_kept(lambda: exported_onnx(model), lambda kept: _open_session(kept, options))
        self._inputs = [item.name for item in self._session.get_inputs()]
        self._shapes = model.buffer_shapes

    def init_state(self) -> State:
        return [np.zeros(shape, np.float32) for shape in self._shapes]

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        scores, *state = self._session.run(None, dict(zip(self._inputs, [frame, *state], strict=True)))
        return scores[0], state


class TvmBackend:
    """Code that TVM compiled. path: a library of online_demo/compile.py; by default built for this CPU and kept."""

    name = "tvm"

    def __init__(self, model: DemoModel, *, threads: int | None = None, path: Path | None = None) -> None:
        if threads:
            os.environ["TVM_NUM_THREADS"] = str(threads)  # read when TVM is imported
        try:
            import tvm  # noqa: F401
        except ImportError as error:
            raise InputError(f"TVM is not installed ({error}): pip install -r requirements-tvm.txt") from None
        from online_demo.backends.tvm_build import cached_library

        if path is not None:
            self._library = _open_library(path)
        else:
            self._library = load_kept(lambda: cached_library(model), _open_library)
        self._shapes = model.buffer_shapes
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


def make_backend(
    name: str,
    model: DemoModel,
    *,
    threads: int | None = None,
    library: Path | None = None,
    int8_clips: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> Backend:
    """Start a backend and compare it with torch on a few frames.

    Args:
        threads: to compute with; None leaves it to the backend.
        library: compiled by online_demo/compile.py, for tvm.
        int8_clips: quantise to 8 bits, calibrated on these (onnxruntime only).
        report: takes lines about what was measured.

    Raises:
        InputError: not installed, options of another backend, or scores that differ from torch's.
    """
    if library is not None and name != "tvm":
        raise InputError(f"--library is for --backend tvm, not {name}")
    if int8_clips and name != "onnxruntime":
        raise InputError(f"--int8 is for --backend onnxruntime, not {name}")
    if name == "torch":
        return TorchBackend(model, threads=threads)
    if name == "onnxruntime":
        backend: Backend = OnnxRuntimeBackend(model, threads=threads)
    elif name == "tvm":
        backend = TvmBackend(model, threads=threads, path=library)
    else:
        raise InputError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    check_backend(backend, model)
    if int8_clips:
        from online_demo.backends.quantize import quantized_backend

        return quantized_backend(model, backend, int8_clips, threads=threads, report=report)
    return backend


@dataclass(frozen=True)
class Agreement:
    """Two backends' scores of the same frames.

    differences: one a frame, the scores' largest, relative to the largest score. num_same: frames with the same best
    class.
    """

    differences: tuple[float, ...]
    num_same: int

    @property
    def worst(self) -> float:
        return float(np.max(self.differences))  # not max(), which passes over most NaNs

    @property
    def num_frames(self) -> int:
        return len(self.differences)


def compare(exact: Backend, other: Backend, streams: Iterable[Iterable[np.ndarray]]) -> Agreement:
    """Run both over every frame of each stream, each with its own state fed back as it will be in use.

    Raises:
        InputError: they are of different numbers of classes.
    """
    num_same, differences = 0, []
    for frames in streams:
        exact_state, other_state = exact.init_state(), other.init_state()
        for frame in frames:
            wanted, exact_state = exact.step(frame, exact_state)
            scores, other_state = other.step(frame, other_state)
            if scores.shape != wanted.shape:
                raise InputError(f"{other.name} gives {len(scores)} scores, {exact.name} {len(wanted)}")
            num_same += int(wanted.argmax() == scores.argmax())
            differences.append(float(np.abs(scores - wanted).max() / np.abs(wanted).max()))
    return Agreement(tuple(differences), num_same)


def check_backend(backend: Backend, model: DemoModel, num_frames: int = NUM_CHECK_FRAMES) -> float:
    """Largest difference from torch's scores over a few frames with the state fed back, relative to the largest score.

    Raises:
        InputError: it is more than MAX_DIFFERENCE, or the backend cannot run this network.
    """
    rng = np.random.default_rng(0)
    frames = (rng.standard_normal(model.frame_shape, dtype=np.float32) for _ in range(num_frames))
    try:
        worst = compare(TorchBackend(model), backend, [frames]).worst
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{backend.name} cannot run {model.path} ({reason}): is it made from these weights?"
        ) from error
    if not worst <= MAX_DIFFERENCE:
        raise InputError(
            f"{backend.name} computes other scores than torch for {model.path}: they differ by {worst:.1e} of the "
            f"largest, at most {MAX_DIFFERENCE:.0e} is rounding; was it compiled from other weights?"
        )
    return worst


def import_onnxruntime() -> Any:
    """The module, or InputError that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"ONNX Runtime is not installed ({error}): pip install -r requirements-demo.txt, or use --backend torch"
        ) from None
    return onnxruntime


def _open_session(path: Path, options: Any) -> Any:
    try:
        return import_onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, none of them public
        raise InputError(f"{path}: ONNX Runtime cannot load it ({error})") from None


def exported_onnx(model: DemoModel) -> Path:
    """The model's ONNX file: exported once, then from the cache."""
    depends_on = {
        "kind": "onnx",
        "weights": model.digest,
        "size": model.input_size,
        "versions": versions(("torch", "onnx", "onnxscript")),
    }
    return cached_file(model.path.name.split(".")[0], ".onnx", depends_on, lambda path: export_onnx(model, path))


def export_onnx(model: DemoModel, path: Path) -> None:
    """Write the step as ONNX: inputs `frame`, `shift_in_0`, ..., outputs `logits`, `shift_out_0`, ..."""
    import contextlib
    import io
    import logging
    import warnings

    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"exporting needs onnx and onnxscript ({error}): pip install -r requirements-demo.txt"
        ) from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it tells of its steps
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.stream,
            model.example_inputs(),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=model.stream.input_names,
            output_names=model.stream.output_names,
            verbose=False,
        )
