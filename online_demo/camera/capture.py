"""Reading a source in a thread of its own, so that neither a slow network nor a silent camera blocks the demo."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from dataclasses import dataclass

import numpy as np

from online_demo.camera.cameras import TIMEOUT_S
from online_demo.camera.sources import Source
from ops.common.errors import InputError

_LATE_S = 1.0


@dataclass(frozen=True)
class Captured:
    """A frame: RGB uint8 (H, W, 3), its number from 0, the duration of reading it.

    time_s: since the first frame, by the clock for a live source, by the number for others. arrived: when it came, by
    time.perf_counter.
    """

    image: np.ndarray
    number: int
    time_s: float
    capture_ms: float
    arrived: float


class Capture:
    """Reads a source in a thread of its own: keeps only the newest frame of a live source, every one of others.

    A context manager. `read` never waits longer than `timeout_s` without a frame.
    """

    _AHEAD = 3  # frames of a file that are decoded in advance

    def __init__(self, source: Source, *, timeout_s: float = TIMEOUT_S) -> None:
        self.source = source
        self._timeout_s = timeout_s
        # Frames, then None at the end or the error that ended them.
        self._queue: queue.Queue[Captured | BaseException | None] = queue.Queue(self._AHEAD)
        self._waiting_since: float | None = None
        self.ended = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._drain()
        self._thread.join(timeout=2)  # the thread of a source that never answers ends with the process

    @property
    def status(self) -> str:
        """Why no frame comes, "" as long as it is not late."""
        if self.source.notice:
            return self.source.notice
        is_late = self._waiting_since is not None and time.monotonic() - self._waiting_since > _LATE_S
        return f"waiting for {self.source.name}" if is_late else ""

    def read(self, wait_s: float = float("inf")) -> Captured | None:
        """The next frame; None at the end, which sets `ended`, and where none comes within `wait_s`.

        Raises:
            InputError: the source broke off, or gave no frame for too long.
        """
        if self._waiting_since is None or self.source.notice:  # the time to open it again has a limit of its own
            self._waiting_since = time.monotonic()
        give_up = self._waiting_since + self._timeout_s
        wait_s = min(wait_s, max(0.0, give_up - time.monotonic()))
        try:
            item = self._queue.get(timeout=wait_s)
        except queue.Empty:
            if self.source.notice or time.monotonic() < give_up:
                return None
            raise InputError(
                f"{self.source.name} gave no frame for {self._timeout_s:g} seconds: is it alive? (--timeout)"
            ) from None
        self._waiting_since = None
        if isinstance(item, BaseException):
            raise item
        self.ended = item is None
        return item

    def _run(self) -> None:
        try:
            with contextlib.closing(self.source.frames()) as frames:
                first = None
                for number in itertools.count():
                    began = time.perf_counter()
                    image = next(frames, None)
                    now = time.perf_counter()
                    if image is None or self._stopped.is_set():
                        break
                    first = first or now
                    time_s = now - first if self.source.live else number / self.source.fps
                    self._put(Captured(image, number, time_s, 1e3 * (now - began), now))
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Captured | BaseException | None) -> None:
        if self.source.live:
            self._drain()
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                return self._queue.put(item, timeout=0.1)

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
