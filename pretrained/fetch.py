"""Fetch published checkpoints: `python -m pretrained.fetch NAME... | --all | --list`."""

from __future__ import annotations

import argparse
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from ops.common.download import TIMEOUT_S
from ops.common.errors import InputError, run_command
from ops.opts import ShowDefaults
from pretrained.checksums import read_checksums, received_file, record_checksum, verify_recorded
from pretrained.download import check_url, download
from pretrained.table import Row, files_folder, find_row, load_table


def fetch(
    row: Row, folder: Path, *, mirror: str | None = None, offline: bool = False, timeout_s: float = TIMEOUT_S
) -> Path:
    """Bring a row's file into `folder`, or check the one that is there; return its path.

    No checksums were published. The first time a file is seen its size and sha256 are recorded beside it, in
    checksums.json, and every later time it must be that same file.

    Raises:
        InputError: not released, not reachable, not the recorded file, or offline and not there.
    """
    file = row.released_file()
    target = folder / file
    recorded = read_checksums(folder).get(file)
    if target.is_file():
        verify_recorded(target)
    elif offline:
        raise InputError(f"{target} is not there, and --offline does not fetch it")
    else:
        url = row.url if mirror is None else f"{mirror.rstrip('/')}/{urllib.parse.quote(file)}"
        download(url, target, expected=recorded, timeout_s=timeout_s)
    if recorded is None:
        record_checksum(folder, file, received_file(target))
    return target


def _print_table(folder: Path) -> None:
    width = max(len(row.name) for row in load_table())
    for row in load_table():
        state = "not released" if row.file is None else "fetched" if (folder / row.file).is_file() else "-"
        figures = "; ".join(f"{result.top1:.1f} {result.protocol.name}" for result in row.results)
        print(f"{row.name:{width}}  {state:12}  {row.dataset} {row.modality}, {row.model}: {figures or 'no figure'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrained.fetch", description="Fetch published checkpoints.", formatter_class=ShowDefaults
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="short names or file names, see --list")
    parser.add_argument("--all", action="store_true", help="fetch every released file")
    parser.add_argument("--list", action="store_true", help="print the table")
    parser.add_argument("--folder", type=Path, help="folder to write (default: $TSM_PRETRAINED, else pretrained/files)")
    parser.add_argument("--mirror", metavar="URL", help="folder with the same file names: https://... or file:///...")
    parser.add_argument("--offline", action="store_true", help="only check the files that are there")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS", help="of a silent server")
    args = parser.parse_args(argv)
    folder = args.folder or files_folder()
    if args.list:
        _print_table(folder)
        return 0
    if bool(args.names) == args.all:
        raise InputError("give the names of what to fetch, or --all; --list shows the names")
    if args.timeout <= 0:
        raise InputError(f"--timeout must be more than 0, not {args.timeout}")
    if args.mirror is not None:
        check_url(args.mirror)

    rows = [row for row in load_table() if row.file] if args.all else [find_row(name) for name in args.names]
    failures = []
    for row in rows:
        try:
            path = fetch(row, folder, mirror=args.mirror, offline=args.offline, timeout_s=args.timeout)
        except InputError as error:
            if len(rows) == 1:
                raise
            print(f"{row.name}: {error}", file=sys.stderr)
            failures.append(row.name)
        else:
            print(f"{row.name}: {path}")
    if failures:
        raise InputError(f"{len(failures)} of {len(rows)} not fetched: {', '.join(failures)}")
    return 0


if __name__ == "__main__":
    run_command(main)
