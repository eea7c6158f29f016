"""The demo's loop: capture a frame, recognise it, draw it, show it; and do what the keys ask for meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from online_demo.camera.cameras import TIMEOUT_S
from online_demo.camera.capture import Capture, Captured
from online_demo.camera.sources import Source
from online_demo.recognizer import Recognizer, Result
from online_demo.show.controls import Controls
from online_demo.show.outputs import Output
from online_demo.show.screen import Screen

_TICK_S = 0.05  # between two looks at the keys while no frame comes


@dataclass(frozen=True)
class Playback:
    """How a source is played.

    paced: show a file at its own rate. repeat: begin it again when it ends. max_frames: stop after so many. timeout_s:
    give up on a silent source.
    """

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
    controls: Controls | None = None,
) -> int:
    """Run until the source ends, the user quits, or `stopped`; returns the number of frames shown."""
    controls = controls or Controls()
    screen = Screen(outputs, controls)

    def is_over() -> bool:
        return stopped() or controls.quit or screen.num_shown == playback.max_frames

    while True:  # each time through the source
        result: Result | None = None
        first_number = screen.num_shown
        with contextlib.closing(_frames(source, playback, controls, is_over)) as frames:
            for frame in frames:
                if controls.take("reset"):
                    recognizer.reset()
                    result = None
                if isinstance(frame, str):
                    screen.refresh(result, status=frame)
                    continue
                is_new = recognizer.takes(frame.number, frame.time_s)
                if is_new:
                    result = recognizer(frame.image, frame.time_s)
                time_s = first_number / source.fps + frame.time_s
                screen.show(frame, first_number + frame.number, time_s, result, is_new=is_new)
        if is_over() or not playback.repeat or source.live:
            return screen.num_shown
        recognizer.reset()


def _frames(
    source: Source, playback: Playback, controls: Controls, is_over: Callable[[], bool]
) -> Iterator[Captured | str]:
    """Go once through a source, a paced file at its own rate.

    While no frame comes a str does, every _TICK_S: the reason, "" if there is none to speak of. A pause holds a file,
    and leaves out what a live source gives.
    """
    began = time.perf_counter()
    with Capture(source, timeout_s=playback.timeout_s) as capture:
        while not is_over():
            if controls.paused and not source.live:
                pause_began = time.perf_counter()
                yield ""
                time.sleep(_TICK_S)
                began += time.perf_counter() - pause_began
                continue
            frame = capture.read(_TICK_S)
            if frame is None and capture.ended:
                return
            if frame is None or controls.paused:
                yield capture.status
                continue
            if playback.paced and not source.live:
                while (early_s := began + frame.time_s - time.perf_counter()) > 0:
                    time.sleep(min(early_s, _TICK_S))
                    if early_s > _TICK_S:
                        yield ""
                frame = replace(frame, arrived=time.perf_counter())  # it was read ahead of its time
            yield frame
