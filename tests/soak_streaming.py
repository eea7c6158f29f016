"""An hour of the demo, to see whether memory, files, threads or latency grow: python -m tests.soak_streaming

The command itself plays the clip in the repository in a loop; every frame is recognised, drawn, encoded and printed. A
row a minute; the last quarter is compared with the second one (the first warms up). Exit status 1 if anything grew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ops.common.errors import run_command
from tests.helpers import PROJECT

MIN_ROWS = 8  # so that a quarter has two
LIMITS = {  # the columns of a row, and the growth that is allowed: a share, and an amount on top of it
    "memory (MiB)": (0.02, 4.0),
    "open files": (0.0, 2.0),  # a clip that begins again has its reader's thread and file twice for a moment
    "threads": (0.0, 2.0),
    "CPU time a frame (ms)": (0.2, 0.0),
    "median latency (ms)": (0.2, 0.0),
}


def measure(pid: int) -> tuple[float, int, int, float]:
    """Memory in MiB, open files, threads and CPU seconds of a process."""
    process = Path("/proc") / str(pid)
    memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    ticks = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return memory, len(os.listdir(process / "fd")), len(os.listdir(process / "task")), seconds


def growth(rows: Sequence[Sequence[float]]) -> list[str]:
    """What grew from the second quarter to the last one by more than is allowed: a line each, none if all is flat.

    Latency also grows with what else this machine does: it counts only where the CPU time of a frame grows as well.
    """
    quarter = len(rows) // 4
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]
    found = {}
    for number, (name, (share, amount)) in enumerate(LIMITS.items()):
        before, after = (statistics.median(row[number] for row in part) for part in (early, late))
        if after > before * (1 + share) + amount:
            found[name] = f"{name} grew from {before:.2f} to {after:.2f}"
    if "CPU time a frame (ms)" not in found:
        found.pop("median latency (ms)", None)
    return list(found.values())


def soak(options: Sequence[str | Path], seconds: float) -> list[list[float]]:
    """Run the demo for so long, as fast as it goes; prints the rows."""
    rows, latencies = [], []
    row_s = seconds / max(MIN_ROWS, round(seconds / 60))
    command = ["-m", "online_demo.main", "--source", "sample", "--loop", "--every", "1", "--no-window"]
    print(f"| seconds | frames | {' | '.join(LIMITS)} |\n|{'---:|' * (2 + len(LIMITS))}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command += ["--output", f"{folder}/video.mkv", *map(str, options)]
        demo = subprocess.Popen([sys.executable, *command], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        try:
            demo.stdout.readline()  # it has started
            began, cpu_before = time.monotonic(), measure(demo.pid)[-1]
            for number, line in enumerate(demo.stdout, start=2):
                latencies.append(json.loads(line)["network_ms"])
                elapsed = time.monotonic() - began
                if elapsed > row_s * (len(rows) + 1):
                    *counts, cpu = measure(demo.pid)
                    rows.append([*counts, 1e3 * (cpu - cpu_before) / len(latencies), statistics.median(latencies)])
                    values = " | ".join(f"{value:.1f}" for value in rows[-1])
                    print(f"| {elapsed:.0f} | {number} | {values} |", flush=True)
                    cpu_before = cpu
                    latencies.clear()
                if elapsed > seconds:
                    return rows
        finally:
            demo.terminate()
            demo.communicate(timeout=60)
    raise RuntimeError(f"the demo ended after {number} frames")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="default: %(default)s")
    parser.add_argument("demo_options", nargs="*", help="after `--`: options of online_demo.main, such as --backend")
    args = parser.parse_args(argv)
    problems = growth(soak(args.demo_options, 60 * args.minutes))
    print("", *(problems or ["flat: memory, files, threads, latency"]), sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    run_command(main)
