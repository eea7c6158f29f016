"""Jobs over processes: one bad file costs that file and nothing else; what the tools read and print."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ops.common.errors import InputError
from ops.common.files import write_lines
from tests.helpers import PROJECT
from tools.shared.files import find_videos, numbered_lines, read_text
from tools.shared.jobs import Failure, run_jobs
from tools.shared.report import report


def work(item):
    """A job that ends in every way a job can."""
    if item == "input":
        raise InputError("no good")
    if item == "bug":
        raise KeyError("oh")
    if item == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "hang":
        time.sleep(60)
    return item * 2


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_come_in_the_order_of_the_items(jobs):
    assert run_jobs(work, list(range(20)), jobs=jobs, label="x") == [2 * i for i in range(20)]
    assert run_jobs(work, [], jobs=jobs, label="x") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_is_a_failure_with_its_reason(jobs):
    results = run_jobs(work, ["a", "input", "bug", "b"], jobs=jobs, label="x")
    assert results == ["aa", Failure("no good"), Failure("KeyError: 'oh'"), "bb"]


def test_a_crashed_worker_costs_one_item():
    items = ["a", "crash", "b", "c", "crash", "d"]
    results = run_jobs(work, items, jobs=2, label="x")
    assert [r for r in results if not isinstance(r, Failure)] == ["aa", "bb", "cc", "dd"]
    assert "process died" in results[1].reason and "process died" in results[4].reason


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_hanging_item_runs_out_of_time(jobs):
    start = time.monotonic()
    results = run_jobs(work, ["a", "hang", "b"], jobs=jobs, label="x", timeout_s=0.5)
    assert results == ["aa", Failure("took more than 0.5 s"), "bb"]
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(number):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.tools.test_jobs import announce\n"
        "from tools.shared.jobs import run_jobs\n"
        "run_jobs(announce, [0, 1], jobs=2, label='x')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(PROJECT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
    deadline = time.monotonic() + 15
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)


def announce(item):
    """Print this process's id in one write (two workers share the pipe), then work for long."""
    os.write(1, f"{os.getpid()}\n".encode())
    time.sleep(60)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_report_names_what_failed_and_sets_the_status(capsys):
    assert report("done", ["a", "b\n\udc80", *range(50)], [1, *[Failure("why")] * 51]) == 1
    out, err = capsys.readouterr()
    assert out == "done: 1 of 52\n"
    assert err.startswith("failed: b\\n\\udc80: why\nfailed: 0: why\n") and err.endswith(
        "failed: 48: why\n... and 1 more\n"
    )
    assert report("done", ["a"], [1]) == 0


def test_text_files(tmp_path):
    path = tmp_path / "new" / "list.txt"
    write_lines(path, ["a b", "ü", "\udcff"])
    assert path.read_bytes() == "a b\nü\n".encode() + b"\xff\n"
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo")
    assert list(numbered_lines(tmp_path / "dos.txt")) == [(1, "one"), (3, "two")]
    (tmp_path / "latin.txt").write_bytes(b"abc\xff")
    for name, message in (("latin.txt", "not a UTF-8 text file"), ("none.txt", "no such file"), (".", "directory")):
        with pytest.raises(InputError, match=message):
            read_text(tmp_path / name)
    with pytest.raises(InputError, match="cannot write"):
        write_lines(tmp_path / "dos.txt" / "x", ["a"])


def test_find_videos_looks_at_suffixes_and_leaves_out_hidden_files(tmp_path):
    for name in ("b/2.MP4", "a/-x.webm", "a/.hidden.mp4", ".cache/z.mp4", "a/notes.txt", "top.avi"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "a")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    found = ["a/-x.webm", "b/2.MP4", "elsewhere/-x.webm", "top.avi"]  # also through links to folders
    assert [path.as_posix() for path in find_videos(tmp_path)] == found
