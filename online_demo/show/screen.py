"""Draws each frame in the views that the outputs take, and hands it to them."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from online_demo.camera.capture import Captured
from online_demo.recognizer import Result
from online_demo.show.controls import Controls
from online_demo.show.draw import Canvas, overlaid
from online_demo.show.outputs import Output, Shown
from ops.common.errors import InputError
from ops.common.files import atomic_path

_RATE_WINDOW = 30  # frames
_DETAILS_S = 0.5


class Screen:
    """All outputs of a stream; one that has enough sets `controls.quit`. num_shown: frames so far."""

    def __init__(self, outputs: Sequence[Output], controls: Controls) -> None:
        self._outputs, self._controls = outputs, controls
        self._views = {output.view for output in outputs}
        self._canvas = Canvas()
        self._image: np.ndarray | None = None  # the last frame
        self._last_banner = self._details = ""
        self._details_until = 0.0
        self._last = Shown(-1, 0.0, None, False, 0.0, 0.0, 0.0)
        self._shown_at: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._capture_ms: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._network_ms: deque[float] = deque(maxlen=_RATE_WINDOW)
        self.num_shown = 0

    def show(self, frame: Captured, number: int, time_s: float, result: Result | None, *, is_new: bool) -> None:
        """Show the next frame, number `number` at `time_s` of its stream."""
        self._shown_at.append(time.perf_counter())
        self._capture_ms.append(frame.capture_ms)
        if is_new and result is not None:
            self._network_ms.append(result.network_ms)
        self._image = frame.image
        self.num_shown += 1
        fps = _rate(self._shown_at)
        self._hand_out(Shown(number, time_s, result, is_new, frame.capture_ms, 0.0, fps, frame.arrived))

    def refresh(self, result: Result | None, *, status: str) -> None:
        """Show the last frame again if anything about it has changed; `status` is why there is no new one."""
        if self._controls.take("changed") or self._banner(status) != self._last_banner or status != self._last.status:
            self._hand_out(replace(self._last, result=result, is_new=False, status=status))

    def _banner(self, status: str) -> str:
        return self._controls.notice or ("paused: p continues" if self._controls.paused else status)

    def _hand_out(self, shown: Shown) -> None:
        controls = self._controls
        self._last_banner = self._banner(shown.status)
        began = time.perf_counter()
        views: dict[str | None, np.ndarray] = {}
        if self._views - {None}:
            views["frame"] = self._canvas.frame(self._image, mirrored=controls.mirrored)
        if self._views & {"annotated", "window"}:
            self._update_details(shown.fps)
            annotated = self._canvas.annotate(views["frame"], shown.result, self._details)
            views["annotated"] = annotated
            views["window"] = overlaid(annotated, self._last_banner, show_help=controls.show_help)
            if controls.take("screenshot"):
                controls.notify(_save_screenshot(annotated))
        self._last = replace(shown, draw_ms=1e3 * (time.perf_counter() - began) if views else 0.0)
        wanted = [output.show(views.get(output.view), self._last) for output in self._outputs]
        if not all(wanted):
            controls.quit = True

    def _update_details(self, fps: float) -> None:
        """Once in a while: faster ones cannot be read, and drawing them takes time."""
        now = time.perf_counter()
        if self._image is None or now < self._details_until:
            return
        times = [
            f"{statistics.fmean(values):.1f}" if values else "-" for values in (self._capture_ms, self._network_ms)
        ]
        self._details = f"{fps:.0f} frames/s, capture {times[0]} ms, network {times[1]} ms"
        self._details_until = now + _DETAILS_S


def _rate(times: Sequence[float]) -> float:
    """Frames a second; 0 until there are two."""
    span = times[-1] - times[0]
    return (len(times) - 1) / span if span > 0 else 0.0


def _save_screenshot(picture: np.ndarray) -> str:
    """Save a PNG in the current folder under a name of the time; returns what to tell the user."""
    path = Path(time.strftime("tsm_%Y-%m-%d_%H-%M-%S.png"))
    try:
        with atomic_path(path) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
    except (InputError, OSError) as error:
        return f"no screenshot: {error}"
    return f"saved {path} in {Path.cwd()}"
