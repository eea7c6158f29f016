"""Numbers in messages."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `counted(1, "video")` -> "1 video", `counted(2, "class", "classes")` -> "2 classes"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
