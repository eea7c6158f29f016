"""Text from strangers' files (class names, file names, messages about them) on one line of a terminal or page."""

from __future__ import annotations

import unicodedata

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
