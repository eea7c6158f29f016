"""An hour of the demo's own loop, to see whether memory, files, threads or latency grow: python -m tests.soak_streaming

The clip in the repository plays in a loop; every frame is recognised and drawn. A row a minute; the last quarter is
compared with the second one (the first warms up). Exit status 1 if anything grew.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from online_demo.backends.choose import BACKENDS, make_backend
from online_demo.camera.sources import open_source
from online_demo.loop import Playback, run_source
from online_demo.model import DEFAULT_WEIGHTS, load_model
from online_demo.recognizer import Recognizer
from online_demo.show.outputs import Shown
from online_demo.smoothing import SmoothingOptions
from ops.common.errors import InputError, run_command
from tests.online_demo.helpers import save_random

MIN_ROWS = 8  # so that a quarter has two
RSS_SHARE, RSS_BYTES = 0.02, 4 << 20  # growth that is allowed, both together
LATENCY_SHARE = 0.20
MORE_FILES = MORE_THREADS = 2  # a clip that begins anew has its reader's thread and file twice for a moment

HEADER = """\
| minutes | frames | frames/s | RSS MiB | files | threads | median ms | p95 ms | CPU ms/frame |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class Row:
    """One stretch of the run, measured at its end. Latency: a frame in hand until it is recognised and drawn."""

    minutes: float  # since the start
    num_frames: int  # since the start
    fps: float
    rss_bytes: int
    num_files: int
    num_threads: int
    median_ms: float
    p95_ms: float
    cpu_ms: float  # of the whole process, a frame

    def __str__(self) -> str:
        return (
            f"| {self.minutes:.2f} | {self.num_frames} | {self.fps:.1f} | {self.rss_bytes / 2**20:.1f} "
            f"| {self.num_files} | {self.num_threads} | {self.median_ms:.2f} | {self.p95_ms:.2f} | {self.cpu_ms:.2f} |"
        )


class Watch:
    """An output of the demo's loop that holds the pace, measures, and ends the run.

    fps: frames a second; None: as fast as it goes. rows: filled as the run goes on, each printed.
    """

    needs_picture = True

    def __init__(self, seconds: float, fps: float | None, max_frames: int | None = None) -> None:
        self.rows: list[Row] = []
        self._fps, self._seconds, self._max_frames = fps, seconds, max_frames
        self._row_s = seconds / max(MIN_ROWS, round(seconds / 60))
        self._latencies: list[float] = []
        self._num_frames = 0
        self._began = self._row_began = time.monotonic()
        self._row_cpu = time.process_time()

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        self._num_frames += 1
        self._latencies.append(shown.result.network_ms + shown.draw_ms)
        now = time.monotonic()
        if self._fps is not None:
            due = self._began + self._num_frames / self._fps
            time.sleep(max(0.0, due - now))
            now = max(now, due)
        if self._max_frames is not None:
            goes_on = self._num_frames < self._max_frames
        else:
            goes_on = now - self._began < self._seconds
        if self._is_full(now) or (not goes_on and now - self._row_began > self._row_s / 2):
            self._end_row(now)
        return goes_on

    def _is_full(self, now: float) -> bool:
        if self._max_frames is not None:
            return self._num_frames % (self._max_frames // MIN_ROWS) == 0
        return now - self._row_began >= self._row_s * (1 - 1e-6)

    def _end_row(self, now: float) -> None:
        count, cpu = len(self._latencies), time.process_time()
        median, p95 = np.percentile(self._latencies, [50, 95])
        row = Row(
            minutes=(now - self._began) / 60,
            num_frames=self._num_frames,
            fps=count / (now - self._row_began),
            rss_bytes=resident_bytes(),
            num_files=len(os.listdir("/proc/self/fd")),
            num_threads=threading.active_count(),
            median_ms=float(median),
            p95_ms=float(p95),
            cpu_ms=1e3 * (cpu - self._row_cpu) / count,
        )
        self.rows.append(row)
        print(row, flush=True)
        self._latencies.clear()
        self._row_began, self._row_cpu = now, cpu


def resident_bytes() -> int:
    """Memory of this process that lies in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(rows: Sequence[Row]) -> list[str]:
    """What grew from the second quarter to the last one by more than is allowed: a line each, none if all is flat.

    Latency grows with whatever else this machine does; ours is told apart by the CPU time that a frame takes.
    """
    if len(rows) < MIN_ROWS:
        return [f"{len(rows)} rows are too few to compare: {MIN_ROWS} are needed"]
    quarter = len(rows) // 4
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]
    found = []

    def check(name: str, attribute: str, allowed_share: float, allowed: float, unit: float = 1.0) -> None:
        before, after = (float(np.median([getattr(row, attribute) for row in part])) for part in (early, late))
        if after > before * (1 + allowed_share) + allowed:
            found.append(f"{name} grew from {before / unit:.2f} to {after / unit:.2f}")

    check("memory (MiB)", "rss_bytes", RSS_SHARE, RSS_BYTES, 2**20)
    check("open files", "num_files", 0, MORE_FILES)
    check("threads", "num_threads", 0, MORE_THREADS)
    check("CPU time a frame (ms)", "cpu_ms", LATENCY_SHARE, 0)
    if found and found[-1].startswith("CPU"):
        check("median latency (ms)", "median_ms", LATENCY_SHARE, 0)
    return found


def soak(weights: Path, *, backend: str, seconds: float, fps: float | None, max_frames: int | None = None) -> list[Row]:
    """Run the demo's loop for so long, or for `max_frames`, as fast as it goes where `fps` is None."""
    model = load_model(weights)
    source = open_source("sample")
    recognizer = Recognizer(model, make_backend(backend, model, threads=1), SmoothingOptions())
    watch = Watch(seconds, fps, max_frames)
    run_source(source, recognizer, [watch], Playback(every=1, repeat=True))
    return watch.rows


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if something grew."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak_streaming", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fps", type=float, default=25, help="frames a second; each goes to the network (%(default)s)")
    parser.add_argument("--backend", choices=BACKENDS, default="torch")
    parser.add_argument("--weights", type=Path, help="default: the demo's, else a random MobileNetV2 at 224 x 224")
    args = parser.parse_args(argv)
    if args.minutes <= 0 or args.fps <= 0:
        raise InputError("--minutes and --fps must be more than 0")
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or (DEFAULT_WEIGHTS if DEFAULT_WEIGHTS.is_file() else None)
        if weights is None:
            weights = save_random(Path(folder) / "random.pth.tar", input_size=224, num_class=8)
        print(f"{args.backend}, {weights.name}, {args.fps:g} frames/s for {args.minutes:g} minutes\n\n{HEADER}")
        rows = soak(weights, backend=args.backend, seconds=60 * args.minutes, fps=args.fps)
    problems = growth(rows)
    print("", *(problems or ["flat: memory, files, threads, latency"]), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    run_command(main)
