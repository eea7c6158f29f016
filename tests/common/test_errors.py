"""Numbers in messages."""

from __future__ import annotations

import pytest

from ops.common.errors import counted


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ["video"], "0 videos"),
        (1, ["video"], "1 video"),
        (2, ["video"], "2 videos"),
        (1, ["class", "classes"], "1 class"),
        (8, ["class", "classes"], "8 classes"),
    ],
)
def test_counted(number, words, text):
    assert counted(number, *words) == text
