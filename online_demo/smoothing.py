"""From the scores of single frames to a label that does not flicker, as the published demo smooths them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from online_demo.gestures import PLAIN, ClassRules

SCORE_WINDOW_S = 0.65  # of the repository's network five results; the published demo's 12 were 0.8 s
_ROUNDING_S = 1e-6


@dataclass(frozen=True)
class SmoothingOptions:
    """Each step can be switched off on its own.

    window_s: the scores of so many seconds are summed (0: no sum). rules: masked and merged classes. vote: a change of
    the result is taken only if the last two kept results agree. threshold: certainty below which a result is unsure.
    """

    window_s: float = SCORE_WINDOW_S
    rules: ClassRules = PLAIN
    vote: bool = True
    threshold: float = 0.0


@dataclass(frozen=True)
class Smoothed:
    """A smoothed result. `label` is None only where every result so far was masked and none held before.

    frame_label: arg max of this frame's scores alone. scores: float32 (K,), mean over the window, for showing.
    """

    label: int | None
    frame_label: int
    scores: np.ndarray


class Smoother:
    """Smooths the results of one stream, frame after frame."""

    def __init__(self, options: SmoothingOptions) -> None:
        self.options = options
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a stream."""
        self._window: deque[tuple[float, np.ndarray]] = deque()  # (time in seconds, scores)
        start = self.options.rules.start
        self._before_last, self._last = start, start  # the last two kept results

    def __call__(self, scores: np.ndarray, time_s: float) -> Smoothed:
        """Take the scores (K,) of the next frame, and its time."""
        self._window.append((time_s, scores))
        while self._window[0][0] < time_s and self._window[0][0] <= time_s - self.options.window_s + _ROUNDING_S:
            self._window.popleft()
        total = sum(scores for _, scores in self._window)
        kept = self._keep(int(np.argmax(total)))
        return Smoothed(kept, int(np.argmax(scores)), total / np.float32(len(self._window)))

    def _keep(self, label: int | None) -> int | None:
        rules = self.options.rules
        if label in rules.masked:
            label = self._last
        label = rules.same_as.get(label, label)
        if self.options.vote and label != self._last and self._last != self._before_last:
            label = self._last
        self._before_last, self._last = self._last, label
        return label
