"""The demo's loop: capture a frame, recognise it, draw it, show it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from online_demo.camera.cameras import TIMEOUT_S
from online_demo.camera.capture import Capture, Captured
from online_demo.camera.sources import Source
from online_demo.recognizer import Recognizer, Result
from online_demo.show.draw import Canvas
from online_demo.show.outputs import Output, Shown

_FPS_WINDOW = 30  # frames


@dataclass(frozen=True)
class Playback:
    """How a source is played.

    mirrored: show a mirror image. paced: show a file at its own rate.
    repeat: begin it again when it ends. max_frames: stop after so many. timeout_s: give up on a silent source.
    """

    mirrored: bool = False
    paced: bool = False
    repeat: bool = False
    max_frames: int | None = None
    timeout_s: float = TIMEOUT_S


def run_source(
    source: Source,
    recognizer: Recognizer,
    outputs: Sequence[Output],
    playback: Playback,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Run until the source ends, an output has enough, or `stopped`; returns the number of frames shown."""
    canvas = Canvas(mirrored=playback.mirrored)
    shown_at: deque[float] = deque(maxlen=_FPS_WINDOW)
    needs_picture = any(output.needs_picture for output in outputs)
    num_shown = 0
    while True:  # each time through the source
        result: Result | None = None
        first_number = num_shown
        with contextlib.closing(_frames(source, playback, stopped)) as frames:
            for frame in frames:
                is_new = recognizer.takes(frame.number, frame.time_s)
                if is_new:
                    result = recognizer(frame.image, frame.time_s)
                shown_at.append(time.perf_counter())
                fps, picture, draw_ms = _rate(shown_at), None, 0.0
                if needs_picture:
                    draw_began = time.perf_counter()
                    picture = canvas.draw(frame.image, result, _details(fps, frame, result))
                    draw_ms = 1e3 * (time.perf_counter() - draw_began)
                number = first_number + frame.number
                time_s = first_number / source.fps + frame.time_s
                shown = Shown(number, time_s, result, is_new, frame.capture_ms, draw_ms, fps)
                num_shown += 1
                wanted = [output.show(picture, shown) for output in outputs]
                if not all(wanted) or num_shown == playback.max_frames:
                    return num_shown
        if stopped() or not playback.repeat or source.live:
            return num_shown
        recognizer.reset()


def _frames(source: Source, playback: Playback, stopped: Callable[[], bool]) -> Iterator[Captured]:
    """Go once through a source, a paced file at its own rate."""
    began = time.perf_counter()
    with Capture(source, timeout_s=playback.timeout_s) as capture:
        while not stopped() and (frame := capture.read(stopped)) is not None:
            if playback.paced and not source.live:
                time.sleep(max(0.0, began + frame.time_s - time.perf_counter()))
            yield frame


def _rate(times: Sequence[float]) -> float:
    """Frames a second; 0 until there are two."""
    span = times[-1] - times[0]
    return (len(times) - 1) / span if span > 0 else 0.0


def _details(fps: float, frame: Captured, result: Result | None) -> str:
    network = "-" if result is None else f"{result.network_ms:.1f} ms"
    return f"{fps:.0f} frames/s\ncapture {frame.capture_ms:.1f} ms, network {network}"
