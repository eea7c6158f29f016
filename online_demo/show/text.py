"""Class names for the eye: without underscores, in letters of any script."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
from collections.abc import Iterator

from PIL import ImageFont

# Names that Pillow finds in the system's font folders, for systems without fontconfig.
_COMMON_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "YuGothR.ttc",
                 "malgun.ttf", "Nirmala.ttf", "segoeui.ttf", "DejaVuSans.ttf", "Arial.ttf")  # fmt: skip
_MISSING = "\U0010ffff"  # no font has it: its picture is the box of a missing letter


def readable(name: str) -> str:
    """A class's name as people read it: `turns_clockwise` -> "turns clockwise"."""
    return " ".join(name.replace("_", " ").split())


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of this size with the text's letters: Pillow's own, else the one of the system's that has most of them."""
    return _font_of(frozenset(c for c in text if not c.isspace()), size)


@functools.lru_cache(maxsize=512)
def _font_of(letters: frozenset[str], size: int) -> ImageFont.FreeTypeFont:
    best, num_best = None, -1
    for font in _fonts(letters, size):
        missing = bytes(font.getmask(_MISSING))
        number = sum(bytes(font.getmask(letter)) != missing for letter in letters)
        if number > num_best:
            best, num_best = font, number
        if number == len(letters):
            break
    return best


def _fonts(letters: frozenset[str], size: int) -> Iterator[ImageFont.FreeTypeFont]:
    yield ImageFont.load_default(size)
    for name in (*_fontconfig_fonts(letters), *_COMMON_FONTS):
        with contextlib.suppress(OSError):
            yield ImageFont.truetype(name, size)


def _fontconfig_fonts(letters: frozenset[str]) -> list[str]:
    """Files of fonts in fontconfig's order, upright sans-serif with these letters first; none where it is missing."""
    if shutil.which("fc-match") is None:
        return []
    charset = " ".join(f"{ord(letter):x}" for letter in sorted(letters))
    command = ["fc-match", "--sort", f"sans-serif:charset={charset}", "--format", "%{file}\n"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
