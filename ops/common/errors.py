"""How a user's mistake reaches the user: one line, exit status 2, no traceback."""

from __future__ import annotations

import argparse
import logging
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """Bad input: what is wrong, where (path, list line, option), and what would work, in one line."""


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number of `low` or more."""

    def parse(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be {low} or more, got {value}")
        return value

    parse.__name__ = f"whole number from {low}"  # argparse puts it in its message
    return parse


def positive(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit the process with its status.

    Exit status: what `main` returns (None is 0), 2 for an InputError (printed as one line on stderr), 130 for Ctrl-C.
    Anything else is our own bug and keeps its traceback.
    """
    program = Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text at all
    try:
        sys.exit(main())
    except InputError as error:
        message = escaped(" ".join(str(error).split()))  # it may quote a file from elsewhere
        print(f"{program}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `command | head` closed our stdout
        sys.stderr.close()
        sys.exit(141)


# --- text in messages -------------------------------------------------------------------------------------------------

# Control characters (terminals obey them), line and paragraph separators, halves of characters. Joiners stay: some
# scripts need them.
_BREAKING = frozenset({"Cc", "Zl", "Zp", "Cs"})


def is_one_line(text: str) -> bool:
    """Whether the text is nothing but characters that show: no control characters, no line breaks, no broken bytes."""
    return text.isprintable() or all(unicodedata.category(c) not in _BREAKING for c in text)


def escaped(text: str) -> str:
    """The text, what `is_one_line` refuses in it written as escapes: a name with `\\x1b[2J` cannot wipe a screen."""
    if is_one_line(text):
        return text
    return "".join(c if is_one_line(c) else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `counted(1, "video")` -> "1 video", `counted(2, "class", "classes")` -> "2 classes"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
