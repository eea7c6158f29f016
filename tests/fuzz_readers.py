"""Damaged files for every reader of the project: python -m tests.fuzz_readers [--cases N] [--seed S] [--reader NAME]

Each case damages one file (tests/damage.py) and reads it in a process of its own kind. Good ends: the result of the
whole file; where the format carries no checksum, a result of the right form; or one InputError. Bad ends: any other
exception, more than CPU_S seconds, a process that dies or takes MAX_GROWTH of memory, a result that is not what its
form promises. Prints a Markdown table; exit status 1 if there was a bad end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from ops.common.errors import InputError, run_command
from tests.damage import damage
from tests.fuzz_base import Reader
from tests.fuzz_media import media_readers
from tests.fuzz_texts import text_readers

READERS = (*media_readers(), *text_readers())

CPU_S = 15
WALL_S = 180  # for those that wait without computing; other programs may keep this machine busy
MAX_GROWTH = 1 << 30

SAME, DIFFERS, REFUSED = "read as before", "read, content differs", "refused with a line"
TRACEBACK, HANG, CRASH, WRONG = "tracebacks", "hangs", "crashes", "wrong results"
KINDS = (SAME, DIFFERS, REFUSED, TRACEBACK, HANG, CRASH, WRONG)
BAD = (TRACEBACK, HANG, CRASH, WRONG)


@dataclass
class Outcomes:
    """How the cases of a reader ended; `bad` tells of each bad end in a line."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        cells = [name, self.counts.total(), *(self.counts[kind] for kind in KINDS)]
        return f"| {' | '.join(map(str, cells))} |"


def table_header() -> str:
    return f"| reader | cases | {' | '.join(KINDS)} |\n|---|{'---:|' * (len(KINDS) + 1)}"


def make_case(reader: Reader, folder: Path, files: Sequence[str], seed: int, number: int) -> tuple[str, str, bytes]:
    """(file, name of the damage, damaged bytes) of a case; depends on nothing but its arguments."""
    rng = np.random.RandomState([seed, number, zlib.crc32(reader.name.encode())])
    file = files[rng.randint(len(files))]
    alike = [other for other in files if other != file and Path(other).suffix == Path(file).suffix]
    others = [(folder / other).read_bytes() for other in alike]
    return file, *damage((folder / file).read_bytes(), rng, others)


def _try(reader: Reader, folder: Path, file: str, whole: dict[str, object]) -> tuple[str, str]:
    """Read the damaged input; returns the kind of end, and what is to be said of a bad one."""
    try:
        value = reader.read(folder, file)
    except InputError as error:
        return (REFUSED, "") if str(error).strip() else (TRACEBACK, "an InputError without words")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:150]
        return TRACEBACK, f"{type(error).__name__}: {text} ({Path(place.filename).name}:{place.lineno})"
    if value == whole[file]:
        return SAME, ""
    problem = reader.problem(value, whole[file])
    if problem is None and any(value == other for name, other in whole.items() if name != file):
        problem = "another file's content"
    return (WRONG, problem) if problem else (DIFFERS, "")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _work(
    reader: Reader, original: Path, files: Sequence[str], seed: int, cases: list[int], answer: Connection
) -> None:
    """In a child: do the cases one after the other, sending (kind, detail) of each."""
    devnull = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(devnull, descriptor)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    folder, elsewhere = original.parent / "work", original.parent / "elsewhere"
    for path in (folder, elsewhere):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(original, folder, symlinks=True)
    elsewhere.mkdir()
    os.chdir(elsewhere)
    whole = {}
    for file in files:
        whole[file] = reader.read(folder, file)
        _restore(original, folder)
    for number in cases:
        file, _, damaged = make_case(reader, original, files, seed, number)
        (folder / file).write_bytes(damaged)
        before = _peak_bytes()
        signal.setitimer(signal.ITIMER_PROF, CPU_S)  # SIGPROF ends the process, wherever it is
        kind, detail = _try(reader, folder, file, whole)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if _peak_bytes() - before > MAX_GROWTH:
            kind, detail = CRASH, f"took {(_peak_bytes() - before) >> 20} MiB"
        if os.listdir(elsewhere) or len(os.listdir(original.parent)) != 3:
            kind, detail = WRONG, "wrote outside of its folder"
        answer.send((kind, detail))
        _restore(original, folder)


def _restore(original: Path, folder: Path) -> None:
    """Put back what a case changed: damaged files, files that it wrote."""
    wanted = {path.relative_to(original) for path in original.rglob("*")}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.relative_to(folder) not in wanted:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for relative in sorted(wanted):
        source, target = original / relative, folder / relative
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif not target.exists() or source.read_bytes() != target.read_bytes():
            shutil.copyfile(source, target)


def fuzz(reader: Reader, cases: Sequence[int], seed: int) -> Outcomes:
    """Do these cases of a reader; a child that dies or hangs costs its case only."""
    outcomes = Outcomes()
    context = multiprocessing.get_context("fork")  # the readers' modules are imported once
    with tempfile.TemporaryDirectory(prefix="tsm-fuzz-") as temporary:
        original = Path(temporary) / "original"
        original.mkdir()
        files = reader.make(original)
        queue = deque(cases)
        while queue:
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_work, args=(reader, original, files, seed, list(queue), theirs))
            child.start()
            theirs.close()
            num_done = 0
            while queue:
                hung = not ours.poll(WALL_S)
                try:
                    kind, detail = (HANG, f"no answer in {WALL_S} s") if hung else ours.recv()
                except EOFError:
                    child.join()
                    if not num_done and child.exitcode == 1:
                        raise RuntimeError(f"{reader.name}: cannot read its own whole files") from None
                    slow = child.exitcode == -signal.SIGPROF
                    kind, detail = (HANG, f"over {CPU_S} s") if slow else (CRASH, f"exit status {child.exitcode}")
                number, num_done = queue.popleft(), num_done + 1
                outcomes.counts[kind] += 1
                if kind in BAD:
                    file, name, _ = make_case(reader, original, files, seed, number)
                    outcomes.bad.append(f"{reader.name} #{number} ({file}, {name}): {kind}: {detail}")
                if hung or not child.is_alive():
                    break
            child.kill()
            child.join()
            ours.close()
    return outcomes


def share_out(num_cases: int, readers: Sequence[Reader]) -> list[int]:
    """Cases of each reader, by weight, one at least."""
    total = sum(reader.weight for reader in readers)
    return [max(1, round(num_cases * reader.weight / total)) for reader in readers]


def fuzz_all(num_cases: int, seed: int, readers: Sequence[Reader] = READERS) -> list[str]:
    """Fuzz, print the table as it grows, and return the bad ends."""
    print(table_header(), flush=True)
    everything = Outcomes()
    for reader, count in zip(readers, share_out(num_cases, readers), strict=True):
        outcomes = fuzz(reader, range(count), seed)
        print(outcomes.row(reader.name), flush=True)
        everything.counts += outcomes.counts
        everything.bad += outcomes.bad
    print(everything.row("all"), flush=True)
    return everything.bad


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 if a case ended badly."""
    names = [reader.name for reader in READERS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz_readers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=6000, help="over all readers (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", metavar="NAME", help=f"only this one: {'; '.join(names)}")
    parser.add_argument(
        "--keep", type=int, metavar="NUMBER", help="do nothing but write this case of --reader to ./fuzz"
    )
    args = parser.parse_args(argv)
    unknown = set(args.reader or ()) - set(names)
    if unknown or args.cases < 1:
        raise InputError(f"no reader {', '.join(unknown)}: {'; '.join(names)}" if unknown else "--cases is 1 or more")
    torch.set_num_threads(1)
    readers = [reader for reader in READERS if not args.reader or reader.name in args.reader]
    if args.keep is not None:
        if len(readers) != 1:
            raise InputError("--keep writes a case of one reader: give one --reader")
        folder = Path("fuzz")
        folder.mkdir()
        file, name, damaged = make_case(readers[0], folder, readers[0].make(folder), args.seed, args.keep)
        (folder / file).write_bytes(damaged)
        print(f"{folder / file}: {name}")
        return 0
    bad = fuzz_all(args.cases, args.seed, readers)
    print("", *bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    run_command(main)
