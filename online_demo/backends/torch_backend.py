"""Eager PyTorch: needs no other package, and is what the other backends are checked against."""

from __future__ import annotations

import numpy as np
import torch

from online_demo.backends.base import State
from online_demo.model import DemoModel


class TorchBackend:
    """A `Backend`."""

    name = "torch"

    def __init__(self, model: DemoModel, *, threads: int | None = None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._stream, self._size = model.stream, model.info.input_size

    def init_state(self) -> State:
        return self._stream.init_state(1, self._size, self._size)

    def step(self, frame: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        scores, state = self._stream.step(torch.from_numpy(frame), state)
        return scores[0].numpy(), state
