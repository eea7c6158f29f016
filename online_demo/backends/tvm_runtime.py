"""Run a library that online_demo/compile.py made, or check it on the machine that it is for.

    python tvm_runtime.py LIBRARY [CHECK.npz]

Needs only apache-tvm and numpy, and no other file of the project, so that this file, the library and its check file can
be copied to a board. The check file holds frames and PyTorch's scores of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_DIFFERENCE = 1e-3  # of the largest score; float32 kernels differ by about 1e-5


class Library:
    """A compiled step, on the GPU if its kernels are for CUDA. Buffers stay TVM's tensors: feeding them back is free.

    Raises:
        OSError: the file cannot be loaded (RuntimeError, as TVM reports it, in some versions).
    """

    def __init__(self, path: str | Path) -> None:
        import tvm
        from tvm import relax

        module = tvm.runtime.load_module(str(path))
        self._device = tvm.cuda() if has_cuda_kernels(module) else tvm.cpu()
        self._empty = tvm.runtime.empty
        self._main = relax.VirtualMachine(module, self._device)["main"]

    def tensor(self, array: np.ndarray) -> Any:
        """A copy as a TVM tensor."""
        out = self._empty(array.shape, str(array.dtype), self._device)
        out.copyfrom(np.ascontiguousarray(array))
        return out

    def zeros(self, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
        """Buffers before the first frame."""
        return [self.tensor(np.zeros(shape, np.float32)) for shape in shapes]

    def step(self, frame: np.ndarray, state: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
        """float32 (1, 3, H, W) and the buffers -> scores (1, K), and the new buffers."""
        out = self._main(self.tensor(frame), *state)
        return out[0].numpy(), [out[index] for index in range(1, len(out))]


def has_cuda_kernels(module: Any) -> bool:
    """Whether a TVM module, or one that it imports, runs on an NVIDIA GPU."""
    return module.kind == "cuda" or any(has_cuda_kernels(imported) for imported in module.imports)


def write_check(path: Path, frames: np.ndarray, scores: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> None:
    """Write a check file: frames float16 (N, 3, H, W) of one stream, the scores (N, K) that they must get."""
    arrays = {f"shape_{index:03d}": np.array(shape, np.int64) for index, shape in enumerate(shapes)}
    with path.open("wb") as file:
        np.savez(file, frames=frames, scores=scores, **arrays)


def run_check(library: Path, check: Path) -> tuple[float, int, float]:
    """Largest difference relative to the largest score, number of frames, median seconds a frame."""
    with np.load(check, allow_pickle=False) as data:
        frames, wanted = data["frames"].astype(np.float32), data["scores"]
        shapes = [tuple(int(n) for n in data[key]) for key in sorted(data.files) if key.startswith("shape_")]
    compiled = Library(library)
    state, worst, seconds = compiled.zeros(shapes), 0.0, []
    for frame, target in zip(frames, wanted, strict=True):
        began = time.perf_counter()
        scores, state = compiled.step(frame[None], state)
        seconds.append(time.perf_counter() - began)
        worst = max(worst, float(np.abs(scores[0] - target).max() / np.abs(target).max()))
    return worst, len(frames), statistics.median(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("check", type=Path, nargs="?", help="default: LIBRARY with .npz in place of its ending")
    args = parser.parse_args()
    check = args.check or args.library.with_suffix(".npz")
    for path in (args.library, check):
        if not path.is_file():
            print(f"tvm_runtime.py: error: {path}: no such file", file=sys.stderr)
            return 2
    worst, num_frames, seconds = run_check(args.library, check)
    good = worst <= MAX_DIFFERENCE
    print(
        f"{'equal' if good else 'DIFFERENT'}: {num_frames} frames, differ by {worst:.1e} of the largest score, "
        f"{1e3 * seconds:.1f} ms a frame (median)"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
