"""Which frames of a stream go to the network, whatever the source gives."""

from __future__ import annotations

import math

_ROUNDING_S = 1e-6


class Pace:
    """Takes frames by their times, `rate` a second, or with `every` one in so many. For one stream."""

    def __init__(self, rate: float, every: int | None = None) -> None:
        self._period_s, self._every = 1 / rate, every
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of a stream: it is taken."""
        self._next_number, self._next_s, self._last_s = 0, -math.inf, -math.inf

    def takes(self, number: int, time_s: float) -> bool:
        """Whether the frame with this number, that came at this time, goes to the network.

        By time it is the frame nearest to when one is due: 25 frames/s at a rate of 10 give frames 0, 2, 5, 7, 10, ...
        A source slower than the rate gives all of its frames.
        """
        if self._every is not None:
            taken = number >= self._next_number
            if taken:
                self._next_number = number + self._every
            return taken
        interval_s = min(time_s - self._last_s, self._period_s)
        self._last_s = time_s
        # Half a frame early is nearer than half a frame late.
        if time_s + interval_s / 2 < self._next_s - _ROUNDING_S:
            return False
        is_late = not time_s < self._next_s + self._period_s
        self._next_s = (time_s if is_late else self._next_s) + self._period_s
        return True
