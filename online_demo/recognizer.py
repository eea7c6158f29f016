"""One stream through the network: preprocessing, a step, smoothing, and how long each took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from online_demo.backends.base import Backend
from online_demo.gestures import ClassRules
from online_demo.pace import Pace
from online_demo.smoothing import SCORE_WINDOW_S, Smoother, SmoothingOptions

if TYPE_CHECKING:
    from online_demo.model import DemoModel

NUM_SHOWN = 5
UNSURE = "unsure"
GAP_WINDOWS = 2  # a longer gap, in windows of the smoothing, begins another stream


@dataclass(frozen=True)
class Result:
    """What the network says of a frame.

    label: what to show: name of the smoothed result, UNSURE if its certainty is below the threshold, "" while there is
    none. index: number of the smoothed result, None where the label is no class. certainty: its probability by the
    scores of the window, None without a result. frame_label: from this frame alone. top: (name, probability) of the
    best classes by the scores of the window, best first, without masked ones. network_ms: preprocessing and the
    network's step.
    """

    label: str
    index: int | None
    certainty: float | None
    frame_label: str
    top: tuple[tuple[str, float], ...]
    network_ms: float

    @property
    def is_unsure(self) -> bool:
        """Whether there is a result, but below the threshold."""
        return self.index is None and self.certainty is not None

    def to_dict(self) -> dict[str, object]:
        """As plain data, for JSON."""
        return {
            "label": self.label,
            "index": self.index,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "unsure": self.is_unsure,
            "frame_label": self.frame_label,
            "top": [[name, round(probability, 4)] for name, probability in self.top],
            "network_ms": round(self.network_ms, 2),
        }


class Recognizer:
    """Frames of one stream -> results. Several may share a model and a backend; each has its own state.

    rate: frames a second for the network, the model's own by default. every: one frame in so many, in place of that.
    """

    def __init__(
        self,
        model: DemoModel,
        backend: Backend,
        smoothing: SmoothingOptions,
        *,
        rate: float | None = None,
        every: int | None = None,
    ) -> None:
        self._model, self._backend, self._smoothing = model, backend, smoothing
        self._smoother = Smoother(smoothing)
        rate = rate or model.info.frame_rate
        self._pace = Pace(rate, every)
        self._max_gap_s = GAP_WINDOWS * max(smoothing.window_s or SCORE_WINDOW_S, 1 / rate)
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of another stream."""
        self._pace.reset()
        self._state = self._backend.init_state()
        self._smoother.reset()
        self._last_s: float | None = None

    def takes(self, number: int, time_s: float) -> bool:
        """Whether the network is to see frame `number`, counted from 0, that came at this time. Ask once a frame.

        After a long gap without any frame, the frame is the first of another stream.
        """
        if self._last_s is not None and time_s - self._last_s > self._max_gap_s:
            self.reset()
        self._last_s = time_s
        return self._pace.takes(number, time_s)

    def __call__(self, image: np.ndarray, time_s: float) -> Result:
        """Take the next frame, RGB uint8 (H, W, 3), and its time."""
        began = time.perf_counter()
        scores, self._state = self._backend.step(self._model.info.preprocess(image), self._state)
        network_ms = 1e3 * (time.perf_counter() - began)
        smoothed = self._smoother(scores, time_s)
        names, rules = self._model.class_names, self._smoothing.rules
        probabilities = shown_probabilities(softmax(smoothed.scores), rules)
        best = np.argsort(-probabilities, kind="stable")
        index, certainty = smoothed.label, None if smoothed.label is None else float(probabilities[smoothed.label])
        is_unsure = certainty is not None and certainty < self._smoothing.threshold
        return Result(
            label=UNSURE if is_unsure else "" if index is None else names[index],
            index=None if is_unsure else index,
            certainty=certainty,
            frame_label=names[smoothed.frame_label],
            top=tuple((names[i], float(probabilities[i])) for i in best if i not in rules.hidden)[:NUM_SHOWN],
            network_ms=network_ms,
        )


def shown_probabilities(probabilities: np.ndarray, rules: ClassRules) -> np.ndarray:
    """Probabilities (K,) as they are shown: none of masked classes, those of merged classes added to the other's."""
    shown = probabilities.copy()
    for index, other in rules.same_as.items():
        shown[other] += probabilities[index]
    shown[list(rules.hidden)] = 0
    return shown


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (K,) -> probabilities (K,)."""
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()
