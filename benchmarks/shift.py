"""The shift alone: in place against the textbook copy, and against copying just the moved channels.

python -m benchmarks.shift [--threads 2] [--rounds 21] [--quick] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.timing import MIB, interleave, median_ms, peak_bytes, print_table, ratio
from ops.common.errors import InputError, run_command
from ops.network.shift_ops import move_frames_, reversed_moves, shift_moves
from ops.temporal_shift import TemporalShift

SEGMENTS = 8
SHAPES = ((64, 256, 56, 56), (64, 512, 28, 28), (64, 1024, 14, 14))
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def textbook_shift(x: Tensor, n_segment: int, fold_div: int = 8) -> Tensor:
    """The few lines that every paper's listing of the shift comes down to: (N*T, C, H, W) -> the same shape."""
    num_frames, channels, height, width = x.shape
    x = x.view(num_frames // n_segment, n_segment, channels, height, width)
    fold = channels // fold_div
    out = torch.zeros_like(x)
    out[:, :-1, :fold] = x[:, 1:, :fold]
    out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out.view(num_frames, channels, height, width)


def run_shape(shape: tuple[int, ...], layout: str, *, rounds: int, device: str) -> list[object]:
    """One row of the table."""
    x = torch.randn(shape, device=device).to(memory_format=FORMATS[layout])
    moves = shift_moves(shape[1], 8)
    num_moved = moves[-1][1]
    buffer = torch.empty_like(x[:, :num_moved])
    if not torch.equal(TemporalShift.shift(x.clone(), SEGMENTS, 8, inplace=True), textbook_shift(x, SEGMENTS)):
        raise RuntimeError("the in-place shift and the textbook shift differ")

    def there_and_back() -> None:
        kept = move_frames_(x, SEGMENTS, moves, keep=True)
        move_frames_(x, SEGMENTS, reversed_moves(moves), fill=kept)

    cases = {
        "textbook": lambda: textbook_shift(x, SEGMENTS),
        "in place": lambda: TemporalShift.shift(x, SEGMENTS, 8, inplace=True),
        "there and back": there_and_back,
        "moved once": lambda: buffer.copy_(x[:, :num_moved]),
    }
    times = interleave(cases, rounds=rounds, device=device)
    memory = [f"{peak_bytes(cases[name], device) / MIB:.1f}" for name in ("textbook", "there and back")]
    return [
        f"{'x'.join(map(str, shape))} {layout}",
        *(f"{median_ms(times, name):.2f}" for name in cases),
        f"{ratio(times, 'textbook', 'in place'):.1f}x",
        f"{ratio(times, 'in place', 'moved once'):.2f}x",
        *memory,
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--rounds", type=int, default=21, help="timed calls of each form (default 21)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="an eighth of the frames, 5 rounds: to see that it runs")
    args = parser.parse_args(argv)
    if args.threads < 1 or args.rounds < 1:
        raise InputError("--threads and --rounds are 1 or more")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {args.device}: no CUDA device here; --device cpu works")
    torch.set_num_threads(args.threads)
    rounds = 5 if args.quick else args.rounds
    shapes = [(shape[0] // 8, *shape[1:]) for shape in SHAPES] if args.quick else SHAPES
    with torch.inference_mode():
        rows = [run_shape(shape, layout, rounds=rounds, device=args.device) for layout in FORMATS for shape in shapes]
    print_table(
        f"Temporal shift, {SEGMENTS} segments, 1/8 of the channels each way, float32",
        (
            "input",
            "textbook ms",
            "in place ms",
            "there and back ms",
            "moved channels copied once ms",
            "textbook / in place",
            "in place / copied once",
            "textbook MiB",
            "there and back MiB",
        ),
        rows,
        device=args.device,
        note=f"Medians of {rounds} interleaved rounds; MiB: peak of one call above the input.",
    )


if __name__ == "__main__":
    run_command(main)
