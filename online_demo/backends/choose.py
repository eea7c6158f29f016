"""From `--backend` to a backend that computes what PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from online_demo.backends.base import Backend, compare
from online_demo.backends.onnx_backend import OnnxRuntimeBackend
from online_demo.backends.tvm_runtime import MAX_DIFFERENCE
from online_demo.model import DemoModel
from online_demo.onnx_file import check_torch
from ops.common.errors import InputError

BACKENDS = ("onnxruntime", "torch", "tvm")
NUM_CHECK_FRAMES = 4


def make_backend(
    name: str,
    model: DemoModel,
    *,
    threads: int | None = None,
    library: Path | None = None,
    int8_clips: Sequence[str] = (),
    report: Callable[[str], None] = print,
) -> Backend:
    """Start a backend; TVM's code is compared with torch on a few frames.

    Args:
        name: one of BACKENDS.
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
    if name in ("torch", "tvm"):
        check_torch()
    if name == "onnxruntime":  # compared when it was exported
        backend: Backend = OnnxRuntimeBackend(model, threads=threads)
        if int8_clips:
            from online_demo.backends.quantize import quantized_backend

            return quantized_backend(model, backend, int8_clips, threads=threads, report=report)
    elif name == "torch":
        from online_demo.backends.torch_backend import TorchBackend

        backend = TorchBackend(model, threads=threads)
    elif name == "tvm":
        from online_demo.backends.tvm_backend import TvmBackend

        backend = TvmBackend(model, threads=threads, path=library)
        check_backend(backend, model)
    else:
        raise InputError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}")
    return backend


def check_backend(backend: Backend, model: DemoModel) -> float:
    """Largest difference from torch's scores over a few frames with the state fed back, relative to the largest score.

    Raises:
        InputError: it is more than MAX_DIFFERENCE, or the backend cannot run this network.
    """
    from online_demo.backends.torch_backend import TorchBackend

    frames = np.random.default_rng(0).standard_normal((NUM_CHECK_FRAMES, *model.info.frame_shape), dtype=np.float32)
    try:
        worst = compare(TorchBackend(model), backend, [frames]).worst
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{backend.name} cannot run {model.path} ({reason}): is it made from these weights?"
        ) from error
    if not worst <= MAX_DIFFERENCE:  # NaN is no agreement either
        raise InputError(
            f"{backend.name} computes other scores than torch for {model.path}: they differ by {worst:.1e} of the "
            f"largest, at most {MAX_DIFFERENCE:.0e} is rounding; was it compiled from other weights?"
        )
    return worst
