"""What every benchmark shares: options, interleaved timing, a table, one line on the machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ops.common.errors import InputError, at_least
from ops.opts import ShowDefaults

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101")
Times = dict[str, list[float]]


def benchmark_parser(doc: str, *, rounds: int, network: bool = False) -> argparse.ArgumentParser:
    """The options that the benchmarks share; `network` adds those of benchmarks of a whole network."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=ShowDefaults)
    parser.add_argument("--rounds", type=at_least(1), default=rounds, help="timed rounds")
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="a small network and one round, to see that it runs")
    if network:
        parser.add_argument("--arch", choices=ARCHS, default="resnet50", help="network")
        parser.add_argument("--size", type=at_least(32), default=224, help="side of a frame in pixels")
    return parser


def prepare(args: argparse.Namespace, **quick: object) -> argparse.Namespace:
    """Set the threads, check the device, and apply what --quick changes."""
    check_device(args.device)
    torch.set_num_threads(args.threads)
    if args.quick:
        vars(args).update(quick)
    return args


def check_device(device: str) -> None:
    """Refuse a CUDA device where there is none, by an InputError."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: no CUDA device here; --device cpu works")


def interleave(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1, device: str = "cpu"
) -> Times:
    """Seconds of every call: each round runs every case once, so that a slow minute of the machine slows all.

    Every round has its own order (a seeded shuffle): a case inherits caches and freed memory from the one before it.
    `warmup` rounds run first and are not kept.
    """
    order = random.Random(0)
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    names = list(cases)
    times: Times = {name: [] for name in names}
    for round_index in range(-warmup, rounds):
        order.shuffle(names)
        for name in names:
            wait()
            began = time.perf_counter()
            cases[name]()
            wait()
            if round_index >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def median_ms(times: Times, name: str) -> float:
    """Median milliseconds of a case."""
    return 1e3 * statistics.median(times[name])


def ratio(times: Times, slow: str, fast: str) -> float:
    """Median over the rounds of (seconds of `slow`) / (seconds of `fast`), each pair of the same round."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def machine(device: str = "cpu") -> str:
    """One line for below a table: processor, threads, versions."""
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        with contextlib.suppress(OSError):
            models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
            name = models[0].split(":", 1)[1].strip() if models else name
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, columns aligned: the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def joined(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    return "\n".join([joined(lines[0]), joined(rule), *(joined(line) for line in lines[1:])])


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[object]], *, device: str = "cpu", note: str = ""
) -> None:
    """Print title, table, note and the machine."""
    print(f"\n{title}\n\n{format_table(header, rows)}\n")
    print("\n".join(line for line in (note, machine(device)) if line))
