"""Reading a source in a thread of its own, so that neither a slow network nor a silent camera holds up the rest."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from online_demo.camera.sources import TIMEOUT_S, Source
from ops.common.errors import InputError

_LOOK_UP_S = 0.2


@dataclass(frozen=True)
class Captured:
    """A frame: RGB uint8 (H, W, 3), its number from 0 among the source's frames, when it came, how long it took."""

    image: np.ndarray
    number: int
    time_s: float
    capture_ms: float


class Capture:
    """Reads a source in a thread of its own: of a live source only the newest frame is kept, of others every one.

    A context manager. `read` never waits longer than `timeout_s` without a frame.
    """

    _AHEAD = 3  # frames of a file that are decoded in advance

    def __init__(self, source: Source, *, timeout_s: float = TIMEOUT_S) -> None:
        self.source = source
        self._timeout_s = timeout_s
        # (frame or None at the end, error)
        self._queue: queue.Queue[tuple[Captured | None, BaseException | None]] = queue.Queue(self._AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._drain()
        self._thread.join(timeout=2)  # a source that never answers keeps its thread; it ends with the process

    def read(self, stopped: Callable[[], bool] = lambda: False) -> Captured | None:
        """The next frame; None at the end, or when `stopped` says so while none comes.

        Raises:
            InputError: the source broke off, or gave nothing for too long.
        """
        deadline = time.monotonic() + self._timeout_s
        while not stopped():
            try:
                frame, error = self._queue.get(timeout=min(_LOOK_UP_S, self._timeout_s))
            except queue.Empty:
                if time.monotonic() < deadline:
                    continue
                raise InputError(
                    f"{self.source.name} gave no frame for {self._timeout_s:g} seconds (--timeout): is it alive?"
                ) from None
            if error is not None:
                raise error
            return frame
        return None

    def _run(self) -> None:
        try:
            frames = self.source.frames()
            number = 0
            while not self._stopped.is_set():
                began = time.perf_counter()
                image = next(frames, None)
                now = time.perf_counter()
                if image is None:
                    break
                self._put((Captured(image, number, now, 1e3 * (now - began)), None))
                number += 1
            if hasattr(frames, "close"):
                frames.close()
            self._put((None, None))
        except BaseException as error:
            self._put((None, error))

    def _put(self, item: tuple[Captured | None, BaseException | None]) -> None:
        if self.source.live:
            self._drain()
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            pass
