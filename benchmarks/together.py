"""Two trainings at once on one CPU: how much each slows the other, as our commands run and as Python starts.

python -m benchmarks.together [--arch resnet50] [--size 224] [--seconds 15] [--rounds 2] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.pool import ThreadPool

from benchmarks.processes import OwnProcess
from benchmarks.step import TSM, Step, build_step
from benchmarks.timing import benchmark_parser, prepare, print_table
from ops.common.errors import at_least, run_command

SETTINGS = {"as Python starts": False, "as our commands run": True}


class TimedSteps:
    """Training steps for a number of seconds, as a callable that returns the seconds of each."""

    def __init__(self, args: argparse.Namespace, seconds: float) -> None:
        self.step: Step = build_step(TSM, args)
        self.seconds = seconds

    def __call__(self) -> list[float]:
        times, end = [], time.perf_counter() + self.seconds
        while not times or time.perf_counter() < end:
            began = time.perf_counter()
            self.step()
            times.append(time.perf_counter() - began)
        return times


def steps_of(number: int, make: partial) -> list[float]:
    """Seconds of every step of `number` trainings at once."""
    trainings = [make() for _ in range(number)]
    with ThreadPool(number) as pool:
        times = pool.map(OwnProcess.__call__, trainings)
    for training in trainings:
        training.close()
    return [seconds for each in times for seconds in each]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = benchmark_parser(__doc__, rounds=2, network=True)
    parser.add_argument("--clips", type=at_least(1), default=1, help="clips a step")
    parser.add_argument("--segments", type=at_least(1), default=8, help="frames a clip")
    parser.add_argument("--seconds", type=at_least(1), default=15, help="seconds that each training takes steps")
    args = prepare(parser.parse_args(argv), arch="resnet18", size=64, rounds=1, seconds=1)
    args.memory_format = "channels_last"
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    times: dict[tuple[str, int], list[float]] = {(name, number): [] for name in SETTINGS for number in (1, 2)}
    for _ in range(args.rounds):
        for (name, number), seconds in times.items():
            make = partial(OwnProcess, TimedSteps, args, args.seconds, threads=args.threads, tuned=SETTINGS[name])
            seconds += steps_of(number, make)
    rows = []
    for name in SETTINGS:
        alone, beside = (statistics.median(times[name, number]) for number in (1, 2))
        rows.append([name, f"{1e3 * alone:.0f}", f"{1e3 * beside:.0f}", f"{beside / alone:.2f}x"])
    print_table(
        f"Two trainings at once, {args.arch}, {args.clips} x {args.segments} frames, {args.size} px",
        ("settings", "a step alone ms", "beside another ms", "slower"),
        rows,
        device=args.device,
        note=f"Medians of the steps of {args.rounds} x {args.seconds} s; each training has {args.threads} threads.",
    )


if __name__ == "__main__":
    run_command(main)
