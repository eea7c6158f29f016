"""Atomic writing: the whole new file, or the old one, and nothing else."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.common.errors import InputError
from ops.common.files import atomic_path, atomic_write_bytes, atomic_write_text

ROOT = Path(__file__).resolve().parents[2]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_block_that_ends_well_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth.tar"
    path.write_text("old")
    with atomic_path(path) as temp:
        assert temp.parent == tmp_path and temp.name.endswith("-a.pth.tar") and temp.name.startswith(".tmp-")
        temp.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert _names(tmp_path) == ["a.pth.tar"]


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_path(path) as temp:
        temp.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a"]


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a $(b) 'c'.txt", "é\r\n\n")
    atomic_write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "a $(b) 'c'.txt").read_bytes() == b"\xc3\xa9\r\n\n"
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        atomic_write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_file_then_folder_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []
    real = os.fsync

    def record(descriptor: int) -> None:
        flushed.append(os.path.isdir(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    atomic_write_text(tmp_path / "a", "x")
    assert flushed == [False, True]


def test_links_are_followed_and_devices_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    atomic_write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    atomic_write_text("/dev/null", "gone")
    assert Path("/dev/null").is_char_device()


def test_bad_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*nowhere/a: No such file or directory"):
        atomic_write_text(tmp_path / "nowhere" / "a", "x")
    with pytest.raises(InputError, match="is a folder"):
        atomic_write_text(tmp_path, "x")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_flush_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    atomic_write_text(tmp_path / "a", "old")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=rf"a: {os.strerror(code)}.*free some space"):
        atomic_write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert _names(tmp_path) == ["a"]


def test_a_disk_that_fills_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "a", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match="free some space"):
            atomic_write_bytes(tmp_path / "a", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a").read_text() == "old"
    assert _names(tmp_path) == ["a"]


def test_errors_about_other_files_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a") as temp:
        temp.write_bytes((tmp_path / "input").read_bytes())
    assert _names(tmp_path) == []


def test_leftovers_of_a_killed_writer_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from ops.common.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temp:\n"
        "    temp.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "ckpt.pth.tar"
    run = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert len(_names(tmp_path)) == 1 and not path.exists()
    living = tmp_path / f".tmp-{os.getppid()}-ckpt.pth.tar"
    living.write_text("being written")
    with atomic_path(path) as temp:
        temp.write_text("whole")
    assert path.read_text() == "whole"
    assert _names(tmp_path) == sorted([living.name, "ckpt.pth.tar"])
