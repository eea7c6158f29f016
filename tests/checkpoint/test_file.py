"""Checkpoint files: data is read, damage is found, code is refused, and each fault is one line."""

from __future__ import annotations

import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ops.checkpoint.file import load_checkpoint, rng_state, save_checkpoint, set_rng_state
from ops.common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = {"a": torch.arange(1000.0), "b": torch.ones(2, 3)}


def _refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def _save(path: Path, data: object, zip_format: bool = True) -> Path:
    torch.save(data, path, _use_new_zipfile_serialization=zip_format)
    return path


class _Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("call", ["os.system", "eval", "subprocess.Popen", "torch.load"])
def test_code_is_refused_and_does_not_run(tmp_path: Path, call: str, zip_format: bool) -> None:
    proof = tmp_path / "ran"
    evil = {
        "os.system": _Runs(os.system, f"touch {proof}"),
        "eval": _Runs(eval, f"open({str(proof)!r}, 'w')"),
        "subprocess.Popen": _Runs(subprocess.Popen, ["touch", str(proof)]),
        "torch.load": _Runs(torch.load, str(tmp_path / "x")),
    }[call]
    path = _save(tmp_path / "evil.pth", {"state_dict": WEIGHTS, "best_prec1": evil}, zip_format)
    _refused(path, "asks for .*which is code and not data: refused, and nothing was run")
    path.write_bytes(pickle.dumps(evil))
    _refused(path, "not a checkpoint")
    path.write_bytes(pickle.dumps(evil, protocol=0))
    _refused(path, "not a checkpoint|code and not data")
    time.sleep(0.05)
    assert not proof.exists()


NUMPY_NUMBERS = [np.float64(71.25), np.float32(71.25), np.float16(71.25), np.int64(71), np.int32(71), np.uint8(71)]


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("value", NUMPY_NUMBERS, ids=[type(value).__name__ for value in NUMPY_NUMBERS])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_of_old_files_are_read(tmp_path: Path, value: np.number, module: str, zip_format: bool) -> None:
    path = _save(tmp_path / "old.pth", {"state_dict": WEIGHTS, "best_prec1": value, "epoch": 5}, False)
    data = path.read_bytes()
    here = value.__reduce__()[0].__module__.encode()
    assert here in data
    if not zip_format:  # a legacy file is plain pickles, so its names can be exchanged
        path.write_bytes(data.replace(b"c" + here + b"\n", b"c" + module.encode() + b"\n"))
    else:
        path = _rewrite_zip(_save(path, torch.load(path, weights_only=False)), here, module.encode())
    checkpoint = load_checkpoint(path)
    assert (checkpoint.best_prec1, checkpoint.epoch) == (float(value), 5)
    assert type(checkpoint.best_prec1) is float


def _rewrite_zip(path: Path, old: bytes, new: bytes) -> Path:
    """Exchange bytes in the pickle of a zip checkpoint, checksums made good."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)
    return path


def test_numbers_in_tensors_are_read(tmp_path: Path) -> None:
    tensor = torch.tensor([71.25])
    assert load_checkpoint(_save(tmp_path / "b", {"state_dict": WEIGHTS, "best_prec1": tensor})).best_prec1 == 71.25


@pytest.mark.parametrize("dtype", ["O", "S8", "M8[s]", "c16", "V8"])
def test_other_numpy_kinds_are_refused(tmp_path: Path, dtype: str) -> None:
    evil = _Runs(np.float64(1).__reduce__()[0], np.dtype(dtype), b"12345678")
    _refused(_save(tmp_path / "a", {"state_dict": WEIGHTS, "best_prec1": evil}), "not a checkpoint|damaged|code")


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file with 'quotes' and $(x).pth"
    _refused(_save(tmp_path / "net.pth", torch.nn.Linear(2, 2)), r"asks for torch\.nn\.modules\.linear\.Linear")
    _refused(path, "No such file")
    _refused(tmp_path, "Is a directory")
    for data in (
        b"",
        b"hello world\n" * 100,
        b"\x80",
        bytes(5000),
        b"PK\x03\x04",
        b"\x89PNG\r\n" * 50,
        os.urandom(5000),
    ):
        path.write_bytes(data)
        _refused(path, "not a checkpoint|damaged")
    for value in ([1, 2], {}, {"state_dict": {}}, {"epoch": 3}, {"a": 1.5}, {1: torch.ones(1)}, "text", torch.ones(3)):
        _refused(_save(path, value), "holds no state_dict")


@pytest.mark.parametrize("name", ["epoch", "best_prec1"])
def test_wrong_kinds_are_refused(tmp_path: Path, name: str) -> None:
    _refused(_save(tmp_path / "a", {"state_dict": WEIGHTS, name: "x"}), name)


@pytest.mark.parametrize("zip_format", [True, False])
def test_every_cut_is_found(tmp_path: Path, zip_format: bool) -> None:
    path = _save(tmp_path / "a", {"state_dict": WEIGHTS}, zip_format)
    whole = path.read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        _refused(path, "damaged|not a checkpoint|code")


def test_every_changed_byte_of_a_zip_file_is_found_or_harmless(tmp_path: Path) -> None:
    path = _save(tmp_path / "a", {"state_dict": WEIGHTS, "epoch": 3})
    whole = path.read_bytes()
    harmless = 0
    for position in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[position] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            checkpoint = load_checkpoint(path)
        except InputError:
            continue
        harmless += 1  # padding between parts, or a date
        assert checkpoint.epoch == 3 and all(torch.equal(checkpoint.state_dict[key], WEIGHTS[key]) for key in WEIGHTS)
    assert harmless < len(whole) / 11 / 2


@pytest.mark.parametrize("zip_format", [True, False])
def test_random_damage_ends_in_weights_or_one_line(tmp_path: Path, zip_format: bool) -> None:
    state = {"state_dict": WEIGHTS, "epoch": 3, "best_prec1": np.float64(5.5), "optimizer": {"state": {0: WEIGHTS}}}
    path = _save(tmp_path / "a", state, zip_format)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 5, 50))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.2:
            start = rng.randrange(len(damaged))
            damaged[start : start + rng.randrange(50)] = rng.randbytes(rng.randrange(50))
        path.write_bytes(bytes(damaged))
        try:
            load_checkpoint(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_checksums_are_optional_when_the_writer_left_them_out(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = _save(tmp_path / "a", WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load_checkpoint(path).state_dict["a"], WEIGHTS["a"])


@pytest.mark.parametrize("zip_format", [True, False])
def test_claims_larger_than_the_file_are_refused(tmp_path: Path, zip_format: bool) -> None:
    path = _save(tmp_path / "a", {"a": torch.arange(1000.0)}, zip_format)
    elements = (b"M\xe8\x03\x85", b"J\x00\x00\x00\x04\x85")  # the size tuple: (1000,) -> (2**26,)
    if zip_format:
        _rewrite_zip(path, *elements)
    else:
        path.write_bytes(path.read_bytes().replace(*elements))
    _refused(path, "damaged")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10_000_000))
    _refused(path, "claim more data than it holds")


def test_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pth.tar"
    save_checkpoint({"state_dict": WEIGHTS, "epoch": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(InputError, match=r"ckpt\.pth\.tar: .* while writing; free some space"):
            save_checkpoint({"state_dict": WEIGHTS, "epoch": 2}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(path).epoch == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["ckpt.pth.tar"]
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint({"state_dict": WEIGHTS}, "/dev/full")


def test_killed_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from ops.checkpoint.file import save_checkpoint\n"
        "for epoch in range(10**6):\n"
        "    weights = torch.full((1_000_000,), float(epoch))\n"
        "    save_checkpoint({'state_dict': {'a': weights}, 'epoch': epoch}, sys.argv[1]); print(epoch, flush=True)\n"
    )
    path = tmp_path / "ckpt.pth.tar"
    command = [sys.executable, "-c", program, str(path)]
    for delay in (0.001, 0.004):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        checkpoint = load_checkpoint(path)
        assert torch.all(checkpoint.state_dict["a"] == checkpoint.epoch)
    save_checkpoint({"state_dict": WEIGHTS}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ckpt.pth.tar"]


def test_random_states_come_back(tmp_path: Path) -> None:
    def draw() -> tuple[float, ...]:
        return (random.gauss(0, 1), float(np.random.randn()), float(torch.rand(())))

    draw()  # leaves half of a pair of normal numbers in Python and numpy
    save_checkpoint({"state_dict": {"a": torch.ones(1)}, "rng": rng_state()}, tmp_path / "a")
    expected = [draw() for _ in range(5)]
    set_rng_state(load_checkpoint(tmp_path / "a").extra["rng"])
    assert [draw() for _ in range(5)] == expected
