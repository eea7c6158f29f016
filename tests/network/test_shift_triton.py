"""The Triton kernel against the frame-by-frame copies: in Triton's interpreter, as compiled code, and on a GPU."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ops.network import shift_ops
from ops.temporal_shift import TemporalShift

ROOT = Path(__file__).resolve().parents[2]

CASES = [
    ((8, 16, 5, 3), 4, 8),
    ((6, 9, 4, 4), 3, 4),
    ((3, 4, 2, 2), 3, 1),  # everything one way
    ((4, 8, 3, 3), 1, 8),  # one frame a clip
    ((4, 16, 1, 1), 2, 8),
    ((4, 64, 14, 14), 2, 4),  # several blocks of lanes
    ((0, 16, 3, 3), 4, 8),
]


def compare(device: str) -> int:
    """Both forms of `move_frames_`, there and back, as bits; the number of comparisons."""
    from ops.network import shift_triton

    count = 0
    formats, dtypes = (torch.contiguous_format, torch.channels_last), (torch.float32, torch.bfloat16)
    for (shape, n_segment, fold_div), online, memory_format, dtype in itertools.product(
        CASES, (False, True), formats, dtypes
    ):
        moves = shift_ops.shift_moves(shape[1], fold_div, online=online)
        back = shift_ops.reversed_moves(moves)
        x = torch.randn(shape, device=device).to(dtype).to(memory_format=memory_format)
        copies, kernel = x.clone(), x.clone()
        kept_copies = shift_ops.move_frames_(copies, n_segment, moves, keep=True)
        kept_kernel = shift_triton.move_frames_(kernel, n_segment, moves, keep=True)
        assert torch.equal(kernel, copies), (shape, n_segment, moves, memory_format, dtype)
        shift_ops.move_frames_(copies, n_segment, back, fill=kept_copies)
        shift_triton.move_frames_(kernel, n_segment, back, fill=kept_kernel)
        assert torch.equal(kernel, x) and torch.equal(copies, x)
        shift_ops.move_frames_(copies, n_segment, back)
        shift_triton.move_frames_(kernel, n_segment, back)
        assert torch.equal(kernel, copies)
        count += 1
    return count


def compile_for(capability: int) -> None:
    """Compile every variant of the kernel to machine code for a GPU that need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ops.network.shift_triton import _move_frames

    names = _move_frames.arg_names
    for channels_last, fill, keep in itertools.product((False, True), repeat=3):
        constants = {"T": 8, "FIRST_STEP": 1, "CHANNELS_LAST": channels_last, "FILL": fill, "KEEP": keep, "BLOCK": 1024}
        signature = {
            name: "constexpr" if name in constants else "*i16" if name.endswith("_ptr") else "i32" for name in names
        }
        constexprs = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=_move_frames, signature=signature, constexprs=constexprs)
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


def run_python(code: str, **environment: str) -> str:
    pytest.importorskip("triton", reason="Triton is not installed: CUDA devices copy frame by frame")
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_kernel_in_the_interpreter_equals_the_copies() -> None:
    code = "from tests.network.test_shift_triton import compare; print(compare('cpu'))"
    assert int(run_python(code, TRITON_INTERPRET="1")) == len(CASES) * 8


def test_kernel_compiles_for_a_gpu(tmp_path: Path) -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
        pytest.skip("older Triton compiles ahead of time by another interface")
    code = "from tests.network.test_shift_triton import compile_for; compile_for(80)"
    run_python(code, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")


def test_without_a_working_kernel_frames_are_copied(caplog: pytest.LogCaptureFixture) -> None:
    missing_device = torch.cuda.device_count()
    assert shift_ops._cuda_move.__wrapped__(missing_device) is None
    assert f"cuda:{missing_device} copies frame by frame" in caplog.text
    assert shift_ops.frame_mover(torch.zeros(2, 2, 1, 1)) is shift_ops.move_frames_


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory_format", (torch.contiguous_format, torch.channels_last))
def test_on_a_gpu_in_place_equals_plain_exactly(memory_format: torch.memory_format) -> None:
    assert shift_ops._cuda_move(torch.cuda.current_device()) is not None
    compare("cuda")
    torch.manual_seed(0)
    x = torch.randn(16, 64, 28, 28, device="cuda").to(memory_format=memory_format)
    conv = nn.Conv2d(64, 32, 1).cuda().to(memory_format=memory_format)
    runs = []
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for inplace in (False, True):
            conv.zero_grad()
            leaf = x.clone().requires_grad_()
            out = TemporalShift(conv, 8, 8, inplace)(leaf)
            out.square().sum().backward()
            assert torch.equal(leaf, x)
            runs.append([out, leaf.grad, conv.weight.grad, conv.bias.grad])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
