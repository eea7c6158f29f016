"""Short forms of the long runs (python -m tests.fuzz_readers, tests.soak_streaming), and what these must notice."""

import os
import signal
import time

import pytest

from tests import fuzz_inputs, fuzz_readers
from tests.fuzz_inputs import Reader, must_not_differ
from tests.soak_streaming import growth, soak

NUM_CASES = int(os.environ.get("TSM_FUZZ_CASES", "1000"))


def test_damaged_files_end_in_a_right_result_or_one_line():
    assert fuzz_readers.fuzz_all(NUM_CASES, seed=1) == []


def test_bad_ends_are_reported(monkeypatch):
    def make(folder):
        (folder / "file").write_bytes(b"whole")
        return ["file"]

    def reader(end):
        return Reader(make, lambda folder, file: (folder / file).read_bytes() == b"whole" or end(), must_not_differ)

    ends = {"tracebacks": lambda: {}[0], "crashes": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "hangs": lambda: time.sleep(60), "wrong results": lambda: "another value"}  # fmt: skip
    for kind, end in ends.items():
        monkeypatch.setitem(fuzz_inputs.READERS, kind, reader(end))
    monkeypatch.setattr(fuzz_readers, "TIMEOUT_S", 1)
    lines = fuzz_readers.fuzz_all(4, seed=0, names=list(ends))
    assert all(f": {kind}: " in line for kind, line in zip(ends, lines, strict=True))


@pytest.mark.parametrize(
    ("later", "names"),  # memory, files, threads, CPU time and latency of the last quarter
    [
        ([513.9, 12, 5, 13.1, 10.0], []),
        ([514.1, 13, 6, 11.0, 10.0], ["memory", "open files", "threads"]),
        ([500.0, 10, 3, 11.0, 40.0], []),  # the machine was busy
        ([500.0, 10, 3, 14.0, 40.0], ["CPU time", "median latency"]),
    ],
)
def test_growth_is_reported_by_name_and_only_above_the_limit(later, names):
    early = [500.0, 10, 3, 11.0, 10.0]
    lines = growth([[1.0] * 5] * 2 + [early] * 4 + [later] * 2)
    assert len(lines) == len(names) and all(map(str.startswith, lines, names))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_streaming_keeps_memory_files_and_threads_flat():
    rows = soak(["--backend", "torch", "--threads", "1"], seconds=8)
    problems = [line for line in growth(rows) if not line.startswith(("CPU", "median"))]  # too short for these
    assert (len(rows), problems) == (8, [])
