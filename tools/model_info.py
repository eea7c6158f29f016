"""Parameters and FLOPs of TSN and TSM side by side, by torch's flop counter.

    python tools/model_info.py resnet50 --num_segments 8

The shift only moves data, so both are the same for both nets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.flop_counter import FlopCounterMode

from ops.common.errors import counted, run_command
from ops.common.modality import MODALITIES
from ops.models import TSN
from ops.network.backbones import BACKBONES
from ops.opts import ShowDefaults


@dataclass(frozen=True)
class ModelCost:
    """`parameters`: trainable or not. `flops`: of one clip, a multiplication and an addition counted as two."""

    name: str
    parameters: int
    flops: int


@torch.no_grad()
def measure(name: str, model: TSN) -> ModelCost:
    """Count a net's parameters, and by torch's own counter the FLOPs of one clip of its own size."""
    model.eval()
    side = model.input_size
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, model.num_segments * model.segment_channels, side, side))
    return ModelCost(name, sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=ShowDefaults)
    parser.add_argument(
        "arch", nargs="?", default="resnet50", help="one of " + ", ".join(BACKBONES) + " (default: resnet50)"
    )
    parser.add_argument("--num_segments", type=int, default=8, help="frames a clip")
    parser.add_argument("--num_class", type=int, default=400, help="classes")
    parser.add_argument("--modality", choices=MODALITIES, default="RGB", help="input")
    parser.add_argument("--input_size", type=int, default=224, help="side of a frame in pixels")
    parser.add_argument("--shift_div", type=int, default=8, help="1/N of the channels each way")
    parser.add_argument("--shift_place", default="blockres", help="blockres or block")
    parser.add_argument("--online", action="store_true", help="shift from the past only")
    parser.add_argument("--temporal_pool", action="store_true", help="halve the frames before the second stage")
    parser.add_argument("--non_local", action="store_true", help="add non-local blocks")
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    args = parser.parse_args(argv)

    costs = []
    for name, is_shift in (("TSN", False), ("TSM", True)):
        model = TSN(
            args.num_class,
            args.num_segments,
            args.modality,
            base_model=args.arch,
            dropout=0.5,
            pretrain="none",
            print_spec=False,
            is_shift=is_shift,
            shift_div=args.shift_div,
            shift_place=args.shift_place,
            temporal_pool=args.temporal_pool,
            non_local=args.non_local,
            online=args.online and is_shift,
            input_size=args.input_size,
        )
        costs.append(measure(name, model))
    if args.json:
        print(json.dumps([asdict(cost) for cost in costs]))
        return
    print(f"{args.arch}, {counted(args.num_segments, 'frame')} of {args.input_size}x{args.input_size} {args.modality}")
    print(f"{'net':<4} {'parameters':>14} {'FLOPs a clip':>18} {'multiply-adds':>14}")
    for cost in costs:
        print(f"{cost.name:<4} {cost.parameters:>14,} {cost.flops:>18,} {cost.flops / 2e9:>12.2f} G")
    same = (costs[0].parameters, costs[0].flops) == (costs[1].parameters, costs[1].flops)
    print("equal" if same else f"not equal: TSM has {costs[1].flops - costs[0].flops:+,} FLOPs")


if __name__ == "__main__":
    run_command(main)
