"""Time of evaluation as frames, crops and videos grow: it should grow as they do.

python -m benchmarks.scaling [--arch resnet50] [--rounds 3] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.evaluate import kinetics_like, shift_options
from benchmarks.timing import Times, benchmark_parser, interleave, median_ms, prepare, print_table
from ops.common.errors import run_command
from ops.dataset import TSNDataSet
from ops.dataset_configs import DatasetPaths
from ops.evaluation.net import Net, Runtime, Views
from ops.models import build_model

FRAMES, CROPS, VIDEOS = (4, 8, 16, 32), (1, 3, 10), (1, 2, 4)
BASE = (8, 1, 1)  # frames, crops, videos
NUM_FRAMES = 64

Case = tuple[int, int, int]


def build_cases(
    args: argparse.Namespace, paths: DatasetPaths, cases: Sequence[Case]
) -> dict[Case, Callable[[], object]]:
    """From JPEG files to the scores of `videos` videos, in this process, for every case."""
    runtime = Runtime(torch.device(args.device))
    runs = {}
    for num_segments, same_segments in itertools.groupby(sorted(cases), key=lambda case: case[0]):
        options = shift_options(args.arch, num_segments, args.size)
        model = build_model(options)
        for case in same_segments:
            net = Net("random weights", model, options, Views(case[1]), runtime)
            runs[case] = partial(score_videos, net, net.dataset(paths), case[2])
    return runs


def score_videos(net: Net, dataset: TSNDataSet, num_videos: int) -> list[torch.Tensor]:
    """Load and score the first video `num_videos` times."""
    return [net.scores(dataset[0][0].unsqueeze(0)) for _ in range(num_videos)]


def make_rows(times: Times, cases: Sequence[Case], names: dict[Case, str]) -> list[list[object]]:
    """Time of each case, and its time a frame, crop and video relative to that of the base."""
    rows = []
    for case in cases:
        work = case[0] * case[1] * case[2] / (BASE[0] * BASE[1] * BASE[2])
        pairs = zip(times[names[case]], times[names[BASE]], strict=True)
        relative = statistics.median(seconds / base for seconds, base in pairs)
        rows.append([*case, f"{median_ms(times, names[case]):.0f}", f"{relative:.2f}x", f"{work:g}x"])
    return rows


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = benchmark_parser(__doc__, rounds=5, network=True)
    return prepare(parser.parse_args(argv), arch="resnet18", size=64, rounds=1)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    grid = [(frames, crops, BASE[2]) for frames, crops in itertools.product(FRAMES, CROPS)]
    cases = [*grid, *((BASE[0], BASE[1], videos) for videos in VIDEOS if videos != BASE[2])]
    names = {case: "{} frames, {} crops, {} videos".format(*case) for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        paths = kinetics_like(Path(folder), num_frames=NUM_FRAMES, num_videos=1)
        runs = {names[case]: run for case, run in build_cases(args, paths, cases).items()}
        times = interleave(runs, rounds=args.rounds, device=args.device)
    print_table(
        f"Cost of evaluation, {args.arch}, {args.size} px, decoding included",
        ("frames", "crops", "videos", "ms", "time", "work"),
        make_rows(times, cases, names),
        device=args.device,
        note=f"Medians of {args.rounds} interleaved rounds. Time and work are relative to"
        f" {BASE[0]} frames, {BASE[1]} crop, {BASE[2]} video.",
    )


if __name__ == "__main__":
    run_command(main)
