"""What a machine does to a run - no space, no permission, dead workers - ends it with one line; it can be resumed.

Some of these need root, to mount a small file system; they are skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from ops.checkpoint.file import load_checkpoint, save_checkpoint
from ops.common.errors import InputError
from ops.common.files import write_lines
from ops.evaluation.plots import confusion_png
from ops.evaluation.scores import Scores
from ops.training.log import RunLog
from tests.kill_training import Training
from tests.training.test_log import read_events
from tests.training.test_resume import arguments, assert_same_run, root, whole, whole_one_thread  # noqa: F401

CHECKPOINT_MB = 18  # MobileNetV2 with its momentum


class SmallDisk:
    """A file system of its own in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode:
            pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")

    def fill(self, spare: int = 0) -> None:
        """Use it up but for about so many bytes."""
        status = os.statvfs(self.folder)
        (self.folder / "ballast").write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - spare)))

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(tmp_path):
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = SmallDisk(tmp_path / "disk")
    small.folder.mkdir()
    small.mount("size=64m")
    yield small
    subprocess.run(["umount", "--lazy", str(small.folder)], check=True, timeout=30)


def train(root: Path, folder: Path, more: str = "") -> int | None:  # noqa: F811
    return main.main(arguments(root, folder, f"--resume auto {more}"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def at_line(monkeypatch):
    """Calls a function at the n-th line of a run's log."""

    def plan(number, action):
        write, lines = RunLog.line, []

        def line(self, text):
            write(self, text)
            lines.append(text)
            if len(lines) == number:
                action()

        monkeypatch.setattr(RunLog, "line", line)

    return plan


# --- no space ---------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_for_a_second_checkpoint(disk, root, whole, tmp_path):  # noqa: F811
    disk.fill(int(1.5 * CHECKPOINT_MB * 2**20))
    on_disk = f"--root_model {disk.folder}"
    with pytest.raises(InputError, match=r"ckpt\.pth\.tar: No space left on device while writing"):
        train(root, tmp_path, on_disk)
    assert names(disk.folder / "run") == ["ckpt.pth.tar"]
    assert load_checkpoint(disk.folder / "run" / "ckpt.pth.tar").extra["training"]["progress"]["step"] == 1
    disk.free()
    disk.mount("remount,size=90m")
    train(root, tmp_path, on_disk)
    shutil.copytree(disk.folder, tmp_path / "model")
    (tmp_path / "model" / "ballast").unlink(missing_ok=True)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("kind", ["line", "scalar", "epoch_row"])
def test_a_full_disk_under_the_log(disk, tmp_path, kind):
    write = {
        "line": lambda log, number: log.line(f"Epoch: [{number}]"),
        "scalar": lambda log, number: log.scalar("loss/train", number, number),
        "epoch_row": lambda log, number: log.epoch_row({"epoch": number}),
    }[kind]
    whole, broken = RunLog(tmp_path / "whole", echo=False), RunLog(disk.folder / "run", echo=False)  # noqa: F811
    for log in (whole, broken):
        for number in range(3):
            write(log, number)
    state = broken.state()
    disk.fill()
    with pytest.raises(InputError, match=r"cannot write the log in .*disk/run: No space left on device"):
        for number in range(3, 10**5):
            write(broken, number)
        broken.state()
    with contextlib.suppress(InputError):  # what is left in its buffers does not fit, either
        broken.close()
    disk.free()
    resumed = RunLog(disk.folder / "run", resume=state, start=(3, 3), echo=False)
    for log, first in ((whole, 3), (resumed, 3)):
        for number in range(first, 6):
            write(log, number)
        log.close()
    for name in ("log.csv", "epochs.csv"):
        assert (disk.folder / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert read_events(disk.folder / "run") == read_events(tmp_path / "whole")


def test_results_that_do_not_fit_leave_what_was_there(disk):
    matrix = np.eye(30, dtype=np.int64)
    scores = Scores([f"video {i}" for i in range(3000)], np.arange(3000) % 30, np.eye(30, dtype=np.float32)[[0] * 3000])
    writers = {
        "scores.npz": lambda path: scores.save(path),
        "predictions.csv": lambda path: write_lines(path, scores.names),
        "confusion.png": lambda path: confusion_png(matrix, None, path),
        "weights.pth": lambda path: save_checkpoint({"state_dict": {"w": torch.zeros(10**5)}}, path),
    }
    for name in writers:
        (disk.folder / name).write_text("of before")
    disk.fill()
    for name, write in writers.items():
        with pytest.raises(InputError, match=f"{name}: No space left on device while writing"):
            write(disk.folder / name)
        assert (disk.folder / name).read_text() == "of before"
    assert names(disk.folder) == sorted([*writers, "ballast"])


# --- no permission, no folder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--root_log", "--root_model", "--plots"])
def test_a_read_only_folder_is_found_before_training(disk, root, tmp_path, option):  # noqa: F811
    disk.mount("remount,ro")
    with pytest.raises(InputError, match=rf"cannot write in .*disk.*: Read-only file system; see {option}$"):
        train(root, tmp_path, f"{option} {disk.folder}")


def test_a_disk_that_becomes_read_only(disk, root, whole, tmp_path, at_line):  # noqa: F811
    at_line(3, lambda: disk.mount("remount,ro"))
    with pytest.raises(InputError, match=r"cannot write .*ckpt\.pth\.tar: Read-only file system"):
        train(root, tmp_path, f"--root_model {disk.folder}")
    disk.mount("remount,rw,size=90m")
    at_line(0, None)
    train(root, tmp_path, f"--root_model {disk.folder}")
    shutil.copytree(disk.folder, tmp_path / "model")
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize(
    ("name", "message"),
    [("model", r"cannot write .*ckpt\.pth\.tar: No such file"), ("log", "cannot write the log in .*: No such file")],
)
def test_a_folder_that_is_deleted_during_the_run(root, tmp_path, at_line, name, message):  # noqa: F811
    at_line(2, lambda: shutil.rmtree(tmp_path / name / "run"))
    with pytest.raises(InputError, match=message):
        train(root, tmp_path)


# --- loader workers ---------------------------------------------------------------------------------------------------


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(pid) for pid in text.split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker through /proc")
def test_a_killed_worker_ends_the_run_after_its_step(root, whole_one_thread, tmp_path):  # noqa: F811
    command = arguments(root, tmp_path, "-j 1 --resume auto --save_every 1000")
    training = Training(command, tmp_path)
    training.wait_for(lambda: any(line.startswith("Epoch:") for line in training.lines()))
    os.kill(children(training.process.pid)[0], signal.SIGKILL)
    assert training.end() == 2
    last = training.errors().splitlines()[-1]
    assert last.startswith("main.py: error: loader worker ") and "was killed (Killed)" in last
    assert "Traceback" not in training.errors()
    assert Training(command, tmp_path).end() == 0
    assert_same_run(tmp_path, whole_one_thread)


def test_no_shared_memory_is_one_line(disk, root, tmp_path):  # noqa: F811
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    command = arguments(root, tmp_path, "-j 2 --resume auto")
    small_shm = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=128k none /dev/shm && exec "$@"', "sh"]
    training = Training(command, tmp_path, prefix=small_shm)
    assert training.end() == 2
    assert "/dev/shm, is full" in training.errors().splitlines()[-1]
    assert "Traceback" not in training.errors()
