"""The soak script: what it calls growth, and a short run of it."""

import dataclasses
import os

import pytest

from tests.online_demo.helpers import save_random
from tests.soak_streaming import LATENCY_SHARE, MIN_ROWS, RSS_BYTES, RSS_SHARE, Row, growth, soak

ROW = Row(1.0, 600, 10.0, 500 << 20, 10, 3, 10.0, 12.0, 11.0)


def rows(**of_the_last):
    """Eight rows; the last quarter (two of them) with other values."""
    return [ROW] * 6 + [dataclasses.replace(ROW, **of_the_last)] * 2


@pytest.mark.parametrize(
    ("attribute", "allowed", "name"),
    [
        ("rss_bytes", round(ROW.rss_bytes * (1 + RSS_SHARE) + RSS_BYTES), "memory (MiB)"),
        ("num_files", ROW.num_files + 2, "open files"),
        ("num_threads", ROW.num_threads + 2, "threads"),
        ("cpu_ms", ROW.cpu_ms * (1 + LATENCY_SHARE), "CPU time a frame (ms)"),
    ],
)
def test_growth_is_told_by_name_and_only_above_the_limit(attribute, allowed, name):
    assert growth(rows(**{attribute: allowed - 1e-9})) == []
    (line,) = growth(rows(**{attribute: allowed + 1}))
    assert line.startswith(f"{name} grew from ")


def test_waiting_for_a_busy_machine_is_no_growth():
    assert growth(rows(median_ms=40.0)) == []
    assert len(growth(rows(median_ms=40.0, cpu_ms=40.0))) == 2


def test_the_first_quarter_warms_up_and_too_few_rows_say_nothing():
    cold = [dataclasses.replace(ROW, rss_bytes=1 << 20, median_ms=1.0)] * 2
    assert growth(cold + [ROW] * 6) == []
    assert len(growth([ROW] * (MIN_ROWS - 1))) == 1


def test_memory_files_and_threads_stay_flat(tmp_path):
    """$TSM_SOAK_FRAMES: how many; an hour of it is `python -m tests.soak_streaming`."""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc here")
    weights = save_random(tmp_path / "small.pth.tar", arch="resnet18", input_size=32)
    num_frames = int(os.environ.get("TSM_SOAK_FRAMES", "480"))
    measured = soak(weights, backend="torch", seconds=1e9, fps=None, max_frames=num_frames)
    assert measured[-1].num_frames == num_frames
    assert [
        line for line in growth(measured) if "latency" not in line and "CPU" not in line
    ] == []  # too short for these
