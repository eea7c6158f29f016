"""What the user asks for by keys while the demo runs."""

from __future__ import annotations

import time

NOTICE_S = 3.0
KEYS = (
    ("h", "show or hide these keys"),
    ("p or space", "pause and continue"),
    ("m", "mirror image"),
    ("r", "reset: forget the frames so far"),
    ("s", "save a screenshot"),
    ("f", "full screen"),
    ("q or Esc", "quit"),
)


class Controls:
    """Shared by the window, whose thread presses keys, and the demo's loop, which obeys them."""

    def __init__(self, *, mirrored: bool = False) -> None:
        self.mirrored = mirrored
        self.paused = self.show_help = self.quit = False
        self._asked: set[str] = set()
        self._notice, self._notice_until = "", 0.0

    def press(self, key: str) -> None:
        """Take a key; others than those of KEYS do nothing. Full screen is the window's own affair."""
        key = key.lower()
        if key in ("q", "\x1b"):
            self.quit = True
        elif key in ("p", " "):
            self.paused = not self.paused
        elif key == "h":
            self.show_help = not self.show_help
        elif key == "m":
            self.mirrored = not self.mirrored
        elif key == "r":
            self._asked.add("reset")
            self.notify("reset")
        elif key == "s":
            self._asked.add("screenshot")
        self._asked.add("changed")

    def take(self, what: str) -> bool:
        """Whether "reset", "screenshot" or a redrawing ("changed") was asked for since the last time."""
        is_asked = what in self._asked
        self._asked.discard(what)
        return is_asked

    def notify(self, text: str) -> None:
        """Show a line for a few seconds."""
        self._notice, self._notice_until = text, time.monotonic() + NOTICE_S
        self._asked.add("changed")

    @property
    def notice(self) -> str:
        """The line to show now, "" for none."""
        return self._notice if time.monotonic() < self._notice_until else ""
