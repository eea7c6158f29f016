"""The interface of what runs the network, one frame at a time, and the comparison of two of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ops.common.errors import InputError

# The buffers of one stream, in the backend's own form; steps return new ones and leave the old as they were.
State = Any


class Backend(Protocol):
    """Runs the steps of any number of streams, also from several threads."""

    name: str

    def init_state(self) -> State:
        """Zeros: the state of a stream before its first frame."""

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Normalised float32 (1, 3, H, W) -> scores float32 (K,), and the state after this frame."""


@dataclass(frozen=True)
class Agreement:
    """Two backends' scores of the same frames.

    differences: of each frame, the largest of its scores' relative to the largest score. num_same: frames with the same
    best class.
    """

    differences: tuple[float, ...]
    num_same: int

    @property
    def worst(self) -> float:
        return float(np.max(self.differences))  # unlike max(), NaN if any is

    @property
    def num_frames(self) -> int:
        return len(self.differences)


def compare(exact: Backend, other: Backend, streams: Iterable[Iterable[np.ndarray]]) -> Agreement:
    """Run both over every frame of each stream, each with its own state fed back as in use.

    Raises:
        InputError: they have different numbers of classes.
    """
    num_same, differences = 0, []
    for frames in streams:
        exact_state, other_state = exact.init_state(), other.init_state()
        for frame in frames:
            wanted, exact_state = exact.step(frame, exact_state)
            scores, other_state = other.step(frame, other_state)
            if scores.shape != wanted.shape:
                raise InputError(f"{other.name} gives {len(scores)} scores, {exact.name} {len(wanted)}")
            num_same += int(wanted.argmax() == scores.argmax())
            differences.append(float(np.abs(scores - wanted).max() / np.abs(wanted).max()))
    return Agreement(tuple(differences), num_same)
