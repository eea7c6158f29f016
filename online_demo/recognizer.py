"""One stream through the network: preprocessing, a step, smoothing, and how long each took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from online_demo.backends.base import Backend
from online_demo.smoothing import Smoother, SmoothingOptions

if TYPE_CHECKING:
    from online_demo.model import DemoModel

NUM_SHOWN = 5


@dataclass(frozen=True)
class Result:
    """What the network says of a frame.

    label: name of the smoothed result, "" while there is none; index: its number. certainty: its probability by the
    scores of the window, None while there is no result. frame_label: from this frame alone. top: (name, probability) of the best classes by the scores of the window, best first. network_ms: preprocessing and
    the network's step.
    """

    label: str
    index: int | None
    certainty: float | None
    frame_label: str
    top: tuple[tuple[str, float], ...]
    network_ms: float

    def to_dict(self) -> dict[str, object]:
        """As plain data, for JSON."""
        return {
            "label": self.label,
            "index": self.index,
            "certainty": None if self.certainty is None else round(self.certainty, 4),
            "frame_label": self.frame_label,
            "top": [[name, round(probability, 4)] for name, probability in self.top],
            "network_ms": round(self.network_ms, 2),
        }


class Recognizer:
    """Frames of one stream -> results. Several may share a model and a backend; each has its own state."""

    def __init__(self, model: DemoModel, backend: Backend, smoothing: SmoothingOptions) -> None:
        self._model, self._backend = model, backend
        self._smoother = Smoother(smoothing)
        self.reset()

    def reset(self) -> None:
        """The next frame is the first of another stream."""
        self._state = self._backend.init_state()
        self._smoother.reset()

    def __call__(self, image: np.ndarray) -> Result:
        """Take the next frame, RGB uint8 (H, W, 3)."""
        began = time.perf_counter()
        scores, self._state = self._backend.step(self._model.preprocess(image), self._state)
        network_ms = 1e3 * (time.perf_counter() - began)
        smoothed = self._smoother(scores)
        names = self._model.class_names
        probabilities = softmax(smoothed.scores)
        best = np.argsort(-probabilities, kind="stable")[:NUM_SHOWN]
        return Result(
            label="" if smoothed.label is None else names[smoothed.label],
            index=smoothed.label,
            certainty=None if smoothed.label is None else float(probabilities[smoothed.label]),
            frame_label=names[smoothed.frame_label],
            top=tuple((names[index], float(probabilities[index])) for index in best),
            network_ms=network_ms,
        )


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (K,) -> probabilities (K,)."""
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()
