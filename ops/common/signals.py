"""Ctrl-C and kill as a request that a run looks at between steps, instead of an end in the middle of one."""

from __future__ import annotations

import os
import signal
from types import FrameType

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While in use, the first SIGINT or SIGTERM is only remembered, in `received`; the next acts as always.

    notice: what the user reads on stderr when it comes; "" for nothing.
    """

    def __init__(self, notice: str = "saving after this step; once more to quit at once") -> None:
        self._notice = notice
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._remember) for number in _CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def __call__(self) -> bool:
        """Whether a signal came in."""
        return self.received is not None

    @property
    def exit_status(self) -> int:
        """What a shell expects of a command that a signal ended: 130 or 143."""
        return 128 + (self.received or signal.SIGTERM)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        if self._notice:  # print() could be interrupted by this very handler
            os.write(2, f"\n{self.received.name}: {self._notice}\n".encode())
