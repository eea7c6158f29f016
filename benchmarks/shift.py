"""The shift alone: in place against the textbook copy, and against copying just the moved channels.

python -m benchmarks.shift [--threads 2] [--rounds 21] [--quick] [--device cuda]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.timing import benchmark_parser, interleave, median_ms, prepare, print_table, ratio
from ops.common.errors import run_command
from ops.network.shift_ops import shift_moves
from ops.temporal_shift import TemporalShift

SEGMENTS = 8
SHAPES = ((64, 256, 56, 56), (64, 512, 28, 28), (64, 1024, 14, 14))
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def textbook_shift(x: Tensor, n_segment: int, fold_div: int = 8) -> Tensor:
    """The shift as papers list it, zeros and three slice copies: (N*T, C, H, W) -> the same shape."""
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
    num_moved = shift_moves(shape[1], 8)[-1][1]
    buffer = torch.empty_like(x[:, :num_moved])
    if not torch.equal(TemporalShift.shift(x.clone(), SEGMENTS, 8, inplace=True), textbook_shift(x, SEGMENTS)):
        raise RuntimeError("the in-place shift and the textbook shift differ")

    cases = {
        "textbook": lambda: textbook_shift(x, SEGMENTS),
        "in place": lambda: TemporalShift.shift(x, SEGMENTS, 8, inplace=True),
        "moved once": lambda: buffer.copy_(x[:, :num_moved]),
    }
    times = interleave(cases, rounds=rounds, device=device)
    return [
        f"{'x'.join(map(str, shape))} {layout}",
        *(f"{median_ms(times, name):.2f}" for name in cases),
        f"{ratio(times, 'textbook', 'in place'):.1f}x",
        f"{ratio(times, 'in place', 'moved once'):.2f}x",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    args = benchmark_parser(__doc__, rounds=21).parse_args(argv)
    args = prepare(args, rounds=5)
    shapes = [(shape[0] // 8, *shape[1:]) for shape in SHAPES] if args.quick else SHAPES
    with torch.inference_mode():
        rows = [
            run_shape(shape, layout, rounds=args.rounds, device=args.device) for layout in FORMATS for shape in shapes
        ]
    header = (
        "input, textbook ms, in place ms, moved channels copied once ms, textbook / in place, in place / copied once"
    )
    print_table(
        f"Temporal shift, {SEGMENTS} segments, 1/8 of the channels each way, float32",
        header.split(", "),
        rows,
        device=args.device,
        note=f"Medians of {args.rounds} interleaved rounds.",
    )


if __name__ == "__main__":
    run_command(main)
