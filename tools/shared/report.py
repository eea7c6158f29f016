"""What a tool prints at its end: how many videos are done, and which are not."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ops.common.errors import escaped
from tools.shared.jobs import Failure

MAX_LISTED = 50  # lines
MAX_NAMED = 3  # names in a line


def first_of(names: Sequence[str]) -> str:
    """The first few names in a line: `a, b, c and 4 more`."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def print_first(lines: Sequence[str], *, where_all_are: str = "") -> None:
    """Print the first lines on stderr, odd bytes of file names escaped, and how many more there are."""
    for line in lines[:MAX_LISTED]:
        print(escaped(line), file=sys.stderr)
    if len(lines) > MAX_LISTED:
        print(f"... and {len(lines) - MAX_LISTED} more{where_all_are}", file=sys.stderr)


def report(done: str, items: Iterable[object], results: Sequence[Any]) -> int:
    """Print how many items are done and, on stderr, each that failed with its reason; returns the exit status."""
    pairs = zip(items, results, strict=True)
    failed = [f"failed: {item}: {result.reason}" for item, result in pairs if isinstance(result, Failure)]
    print(f"{done}: {len(results) - len(failed)} of {len(results)}")
    print_first(failed)
    return 1 if failed else 0


def print_counts(results: Sequence[int | Failure]) -> None:
    """Print how many frames were written and how many videos were finished before."""
    counts = [result for result in results if not isinstance(result, Failure)]
    print(f"frames written: {sum(counts)} (videos finished before: {counts.count(0)})")
