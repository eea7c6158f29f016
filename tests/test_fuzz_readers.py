"""A short run of the fuzz script, and what the script itself must notice."""

import os
import signal

import numpy as np
import pytest
import torch

from ops.common.errors import InputError
from tests.damage import damage
from tests.fuzz_base import Reader, nothing_may_differ
from tests.fuzz_readers import CRASH, DIFFERS, HANG, READERS, REFUSED, SAME, TRACEBACK, WRONG, fuzz, fuzz_all, share_out

NUM_CASES = int(os.environ.get("TSM_FUZZ_CASES", "240"))


def test_damaged_files_end_in_a_right_result_or_one_line(capsys):
    """Thousands of cases: TSM_FUZZ_CASES=6000, or python -m tests.fuzz_readers."""
    torch.set_num_threads(1)
    assert fuzz_all(NUM_CASES, seed=1) == []
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(READERS) + 3
    assert sum(share_out(6000, READERS)) >= 5000


def make_two(folder):
    for name in ("a", "b"):
        (folder / name).write_bytes(f"whole {name}".encode() * 20)
    return ["a", "b"]


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (lambda folder, file: "constant", SAME),
        (lambda folder, file: (folder / file).read_bytes(), DIFFERS),
        (lambda folder, file: _raise(InputError("a line")), REFUSED),
        (lambda folder, file: _raise(InputError("")), TRACEBACK),
        (lambda folder, file: _raise(KeyError("x")), TRACEBACK),
        (lambda folder, file: os.kill(os.getpid(), signal.SIGSEGV), CRASH),
        (lambda folder, file: [None for _ in iter(int, 1)], HANG),
        (lambda folder, file: (folder.parent / "elsewhere" / "x").write_text("x"), WRONG),
        (lambda folder, file: (folder / ("b" if file == "a" else "a")).read_bytes(), WRONG),
    ],
)
def test_every_kind_of_end_is_told(ending, kind, monkeypatch):
    monkeypatch.setattr("tests.fuzz_readers.CPU_S", 0.3)

    def read(folder, file):
        data = (folder / file).read_bytes()
        return data if data == f"whole {file}".encode() * 20 and kind != SAME else ending(folder, file)

    outcomes = fuzz(Reader("it", make_two, read, lambda value, whole: None), range(3), seed=0)
    assert outcomes.counts == {kind: 3}
    assert len(outcomes.bad) == (0 if kind in (SAME, DIFFERS, REFUSED) else 3)


def _raise(error):
    raise error


def test_a_result_of_the_wrong_form_is_bad():
    reader = Reader("it", make_two, lambda folder, file: (folder / file).read_bytes(), nothing_may_differ)
    assert fuzz(reader, range(2), seed=0).counts == {WRONG: 2}


def test_damage_is_repeatable_and_always_damages():
    data, other = bytes(range(256)) * 4, bytes(1024)
    made = [damage(data, np.random.RandomState(seed), [other]) for seed in range(400)]
    assert made == [damage(data, np.random.RandomState(seed), [other]) for seed in range(400)]
    assert all(damaged != data for _, damaged in made)
    assert len({name for name, _ in made}) == 17  # 13 functions, empty, wrong kind, noise, other file's block
