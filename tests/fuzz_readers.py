"""Damaged files for the readers of the project: python -m tests.fuzz_readers [--cases N] [--seed S] [--reader NAME]

Each case damages one file and reads it as tests/fuzz_inputs.py says. Good ends: the value of the whole file; where the
format carries no checksum, a value of the right form; or one InputError. Bad ends: any other exception, more than
TIMEOUT_S seconds, a process that dies or takes MAX_GROWTH_MIB more memory, a value of the wrong form. Prints a Markdown
table; exit status 1 if there was a bad end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import TimeoutError
from pathlib import Path

import numpy as np
import torch
from pebble import ProcessExpired, ProcessPool

from ops.common.errors import InputError, at_least, run_command
from tests.fuzz_inputs import READERS, Value

TIMEOUT_S = 120  # other programs may keep this machine busy
MAX_GROWTH_MIB = 1024

SAME, DIFFERS, REFUSED = "read as before", "read, content differs", "refused with a line"
TRACEBACK, HANG, CRASH, WRONG = "tracebacks", "hangs", "crashes", "wrong results"
KINDS = (SAME, DIFFERS, REFUSED, TRACEBACK, HANG, CRASH, WRONG)

OTHER_FILES = (  # in the place of a file
    b"<!doctype html><title>404 Not Found</title>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    b"\xff\xfev\0i\0d\0e\0o\0 \0001\0\n\0",  # UTF-16
    b"0 0 0\n" * 50,
    bytes(4096),
    b"",
)


def change_bytes(data: bytes, rng: np.random.RandomState) -> bytes:
    """One to eight bytes: anywhere, in the first 512 (headers) or in the last 512 (tables of archives and videos)."""
    damaged, size = bytearray(data), len(data)
    start, stop = ((0, size), (0, min(512, size)), (max(0, size - 512), size))[rng.randint(3)]
    for at in rng.randint(start, stop, size=rng.randint(1, 9)):
        damaged[at] ^= rng.randint(1, 256)
    return bytes(damaged)


def damage(data: bytes, rng: np.random.RandomState, others: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """Name of the damage and the damaged bytes, which always differ from `data`; others: files of the same kind."""
    while True:
        length = min(len(data), int(np.exp(rng.uniform(0, np.log(4096)))))  # mostly short
        start = rng.randint(len(data) - length + 1)
        before, block, after = data[:start], data[start : start + length], data[start + length :]
        other, stop = others[rng.randint(len(others))] if others else b"", start + min(length, len(data) // 4 + 1)
        ways = {
            "a bit flipped": before + bytes([block[0] ^ (1 << rng.randint(8))]) + block[1:] + after,
            "bytes changed": change_bytes(data, rng),
            "a digit changed": before + (block + after).replace(b"%d" % rng.randint(10), b"%d" % rng.randint(10), 1),
            "end cut": data[: rng.randint(len(data))],
            "a block removed": before + after,
            "a block repeated": before + block + block + after,
            "a block of zeros": before + bytes(length) + after,
            "a block of noise": before + rng.bytes(length) + after,
            "a block of another file": data[:start] + other[start:stop] + data[stop:],
            "another file": OTHER_FILES[rng.randint(len(OTHER_FILES))],
        }
        name = list(ways)[rng.randint(len(ways))]
        if ways[name] != data:
            return name, ways[name]


def make_case(name: str, folder: Path, files: Sequence[str], seed: int, number: int) -> tuple[str, str, bytes]:
    """(file, name of the damage, damaged bytes) of a case; depends on nothing but its arguments."""
    rng = np.random.RandomState([seed, number, zlib.crc32(name.encode())])
    file = files[rng.randint(len(files))]
    alike = [other for other in files if other != file and Path(other).suffix == Path(file).suffix]
    return file, *damage((folder / file).read_bytes(), rng, [(folder / other).read_bytes() for other in alike])


def read_copy(name: str, original: Path, file: str, data: bytes | None = None) -> Value:
    """What a reader makes of a copy of its folder, in which the file may hold other data."""
    with tempfile.TemporaryDirectory(dir=original.parent) as work:
        folder = Path(shutil.copytree(original, work, dirs_exist_ok=True))
        if data is not None:
            (folder / file).write_bytes(data)
        return READERS[name].read(folder, file)


def run_case(name: str, original: Path, whole: dict[str, Value], seed: int, number: int) -> tuple[str, str]:
    """Read a damaged file; returns the kind of end, and what to say of a bad one."""
    file, _, damaged = make_case(name, original, list(whole), seed, number)
    kind, detail, before = DIFFERS, "", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        value = read_copy(name, original, file, damaged)
        problem = READERS[name].problem(value, whole[file])
        if value == whole[file]:
            kind = SAME
        elif problem or value in whole.values():
            kind, detail = WRONG, problem or "another file's content"
    except InputError:
        kind = REFUSED
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind, detail = TRACEBACK, f"{error!r} ({Path(place.filename).name}:{place.lineno})"[-200:]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    return (CRASH, f"took {grown} MiB") if grown > MAX_GROWTH_MIB else (kind, detail)


def _start_worker() -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(devnull, descriptor)
    torch.set_num_threads(1)


def fuzz(pool: ProcessPool, name: str, num_cases: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Run cases 0 to `num_cases` - 1 of a reader; returns how many ended in which way, and a line for each bad end."""
    counts, bad = Counter(), []
    with tempfile.TemporaryDirectory(prefix="tsm-fuzz-") as temporary:
        original = Path(temporary) / "original"
        original.mkdir()
        files = READERS[name].make(original)
        whole = {file: pool.schedule(read_copy, (name, original, file)).result() for file in files}
        cases = [pool.schedule(run_case, (name, original, whole, seed, n), timeout=TIMEOUT_S) for n in range(num_cases)]
        for number, case in enumerate(cases):
            try:
                kind, detail = case.result()
            except TimeoutError:
                kind, detail = HANG, f"over {TIMEOUT_S} s"
            except ProcessExpired as error:
                kind, detail = CRASH, f"exit status {error.exitcode}"
            counts[kind] += 1
            if kind not in (SAME, DIFFERS, REFUSED):
                file, damage_name, _ = make_case(name, original, files, seed, number)
                bad.append(f"{name} #{number} ({file}, {damage_name}): {kind}: {detail}")
    return counts, bad


def fuzz_all(num_cases: int, seed: int, names: Sequence[str] = tuple(READERS)) -> list[str]:
    """Share the cases out over these readers, print the table as it grows, and return a line for each bad end."""
    total, problems = Counter(), []
    print(f"| reader | cases | {' | '.join(KINDS)} |\n|---|{'---:|' * (len(KINDS) + 1)}", flush=True)
    context = multiprocessing.get_context("fork")  # the readers' modules are imported once
    with ProcessPool(os.cpu_count(), initializer=_start_worker, context=context) as pool:
        for name in names:
            counts, bad = fuzz(pool, name, -(-num_cases // len(names)), seed)
            print(_row(name, counts), flush=True)
            total, problems = total + counts, problems + bad
    print(_row("all", total), flush=True)
    return problems


def _row(name: str, counts: Counter[str]) -> str:
    return f"| {' | '.join(map(str, [name, counts.total(), *(counts[kind] for kind in KINDS)]))} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if a case ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=at_least(1), default=6000, help="over all readers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS), help="only these")
    args = parser.parse_args(argv)
    problems = fuzz_all(args.cases, args.seed, args.reader)
    print("", *problems, sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    run_command(main)
