"""Reproduce a published figure: `python -m pretrained.reproduce NAME [--run] [--protocol ...] [-- options]`.

Prints the test_models.py command of every figure of a model; with --run, runs it and compares. Options after -- go to
test_models.py.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.common.errors import InputError, run_command
from ops.opts import ShowDefaults
from pretrained.table import Result, Row, fetched_path, files_folder, find_row

PROJECT = Path(__file__).resolve().parents[1]
_ACCURACY = re.compile(r"Overall Prec@1 ([\d.]+)% Prec@5 ([\d.]+)%")


def evaluation_command(row: Row, result: Result, weights: Path, extra: Sequence[str] = ()) -> list[str]:
    """Arguments of test_models.py that reproduce a figure, as the published scripts give them."""
    return [
        row.dataset,
        f"--weights={weights}",
        f"--test_segments={result.segments}",
        *result.protocol.options,
        *extra,
    ]


def run_test(arguments: Sequence[str]) -> tuple[float, float]:
    """Run test_models.py, showing what it prints; return its top-1 and top-5 in per cent.

    Raises:
        InputError: it failed, or printed no accuracy.
    """
    command = [sys.executable, str(PROJECT / "test_models.py"), *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    found = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace", env=environment) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            found = _ACCURACY.search(line) or found
    if process.returncode != 0:
        raise InputError(f"test_models.py ended with status {process.returncode}: {shlex.join(arguments)}")
    if found is None:
        raise InputError("test_models.py printed no 'Overall Prec@1' line")
    return float(found[1]), float(found[2])


def compare(result: Result, top1: float, top5: float, tolerance: float) -> tuple[bool, str]:
    """Whether the measured accuracies (per cent) are within `tolerance` of the published ones, and a line that says so.

    A figure above the published one by more than the tolerance counts as different too.
    """
    parts, good = [], True
    for name, ours, theirs in (("top-1", top1, result.top1), ("top-5", top5, result.top5)):
        if theirs is None:
            parts.append(f"{name} {ours:.2f}")
            continue
        difference = round(ours - theirs, 6)
        good = good and abs(difference) <= tolerance
        parts.append(f"{name} {ours:.2f}, published {theirs:.1f}, difference {difference:+.2f}")
    verdict = "reproduced" if good else f"NOT within {tolerance:g}"
    return good, f"{result.protocol.text}: {'; '.join(parts)}: {verdict}"


def _split(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Our own arguments, and those after `--`, which are test_models.py's."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns 1 where a figure is not reproduced."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrained.reproduce",
        description="Print or run the command of a published figure.",
        formatter_class=ShowDefaults,
        epilog="Arguments after -- go to test_models.py, such as: -- --batch_size=8 -j 16 --root_dataset /data",
    )
    parser.add_argument("name", help="short name or file name, see python -m pretrained.fetch --list")
    parser.add_argument("--run", action="store_true", help="run the commands and compare")
    parser.add_argument("--protocol", help="only this one (default: all that were published for the model)")
    parser.add_argument("--folder", type=Path, help="of the files (default: $TSM_PRETRAINED, else pretrained/files)")
    parser.add_argument("--tolerance", type=float, default=0.3, help="allowed difference in per cent")
    ours, extra = _split(argv)
    args = parser.parse_args(ours)
    row = find_row(args.name)
    results = [result for result in row.results if args.protocol in (None, result.protocol.name)]
    if not results:
        names = ", ".join(result.protocol.name for result in row.results) or "no protocol"
        raise InputError(f"{row.name}: figures were published for {names}")
    folder = args.folder or files_folder()
    weights = fetched_path(row, folder) if args.run else folder / row.released_file()

    lines, all_good = [], True
    for result in results:
        command = evaluation_command(row, result, weights, extra)
        print(f"# {row.model} on {row.dataset} {row.modality}, published: {result}")
        print(shlex.join(["python", "test_models.py", *command]), flush=True)
        if args.run:
            good, line = compare(result, *run_test(command), args.tolerance)
            all_good = all_good and good
            lines.append(line)
    if not args.run and not weights.is_file():
        print(f"# first: python -m pretrained.fetch {row.name}")
    for line in lines:
        print(line)
    return 0 if all_good else 1


if __name__ == "__main__":
    run_command(main)
