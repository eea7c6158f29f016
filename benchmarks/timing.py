"""What every benchmark shares: interleaved timing, peak memory, a table, one line on the machine."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

MIB = 2**20
Times = dict[str, list[float]]


def interleave(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1, device: str = "cpu"
) -> Times:
    """Seconds of every call: each round runs every case once, so a slow minute of the machine hits all alike.

    Every round has its own order (a seeded shuffle), so that no case always runs after the same other, whose caches and
    freed memory it would inherit. `warmup` rounds run first and are not kept.
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


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """The profiler's native code writes to file descriptor 2, whatever the log level."""
    with open(os.devnull, "w") as devnull, contextlib.ExitStack() as stack:
        saved = os.dup(2)
        stack.callback(os.close, saved)
        stack.callback(os.dup2, saved, 2)
        os.dup2(devnull.fileno(), 2)
        yield


def peak_bytes(function: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that torch held during one call, above what it held before (CPU: from the profiler's record)."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _silent_stderr(), tempfile.TemporaryDirectory() as folder:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            function()
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    allocations = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    held = peak = 0
    for _, num_bytes in allocations:
        held += num_bytes
        peak = max(peak, held)
    return peak


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
