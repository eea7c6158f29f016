"""Outputs of the demo: a video file, lines of JSON. The window is in window.py, the web page in web/server.py."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TextIO

import av
import numpy as np

from online_demo.recognizer import Result
from ops.common.errors import InputError
from ops.common.files import atomic_path

VIDEO_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TIME_BASE = 90_000


@dataclass(frozen=True)
class Shown:
    """A frame to show, number `number` at `time_s` of its stream; number -1 before the first one.

    result: the network's last one; is_new: it belongs to this very frame. capture_ms, draw_ms: time of reading and
    drawing the frame. fps: frames shown a second. arrived: when the frame came from the source, by time.perf_counter.
    status: what keeps the source from giving frames, "" while it gives them.
    """

    number: int
    time_s: float
    result: Result | None
    is_new: bool
    capture_ms: float
    draw_ms: float
    fps: float
    arrived: float = 0.0
    status: str = ""

    def to_dict(self) -> dict[str, object]:
        """As plain data, for JSON."""
        result = {} if self.result is None else self.result.to_dict()
        return {
            "frame": self.number,
            "time_s": round(self.time_s, 3),
            **result,
            "capture_ms": round(self.capture_ms, 2),
            "draw_ms": round(self.draw_ms, 2),
            "fps": round(self.fps, 1),
        }


class Output(Protocol):
    """Takes frame after frame. view: the picture that it takes, or None.

    Views: "frame", the frame alone; "annotated", with the bar below; "window", with notices and the list of keys, too.
    """

    view: str | None

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        """Take a frame; returns False when the user ends the demo.

        The same frame comes again, not new, when what is drawn on it or `status` has changed.
        """


class JsonLines:
    """Writes a line for every result."""

    view = None

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        if shown.is_new:
            try:
                print(json.dumps(shown.to_dict(), ensure_ascii=False), file=self._file, flush=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                # What is left in the buffer would be an error again when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._file.fileno())
                raise InputError(f"cannot write the results to stdout ({error.strerror}); free some space?") from None
        return True


class VideoOutput:
    """Writes pictures as H.264 (MPEG-4 where PyAV lacks the encoder), each at its own time."""

    view = "annotated"

    def __init__(self, path: Path, container: Any, fps: float) -> None:
        self.num_frames = 0  # written so far
        self._path, self._container, self._fps = path, container, fps
        self._stream: Any = None
        self._last_number = self._last_pts = -1

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        if shown.number <= self._last_number:
            return True
        self._last_number = shown.number
        if self._stream is None:
            self._stream = self._add_stream(picture.shape[1], picture.shape[0])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        pts = max(self._last_pts + 1, round(shown.time_s * _TIME_BASE))
        frame.pts, frame.time_base, self._last_pts = pts, Fraction(1, _TIME_BASE), pts
        with _writing(self._path):
            self._container.mux(self._stream.encode(frame))
        self.num_frames += 1
        return True

    def finish(self) -> None:
        """Write the frames that the encoder still holds, and the end of the file."""
        if self.num_frames == 0:
            raise InputError(f"{self._path}: the source gave no frame, there is no video to write")
        with _writing(self._path):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def _add_stream(self, width: int, height: int) -> Any:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = {"preset": "veryfast", "crf": "20", "bf": "0"} if codec == "libx264" else {"qmin": "2", "qmax": "5"}
        stream = self._container.add_stream(codec, rate=max(1, round(self._fps)), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TIME_BASE)
        return stream


class WritingError(InputError):
    """The video cannot be written."""


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise WritingError(f"{path}: cannot write the video ({error.strerror or error}); free some space?") from error


def check_video_path(path: Path) -> None:
    """Raise InputError for a file name of another format."""
    if path.suffix.lower() not in VIDEO_FORMATS:
        raise InputError(f"--output {path}: give a name that ends with {', '.join(VIDEO_FORMATS)}")


@contextlib.contextmanager
def open_video_output(path: Path, fps: float) -> Iterator[VideoOutput]:
    """Give a video to write; it becomes `path` even if the block raises: a broken source leaves the frames before it.

    Raises:
        InputError: it cannot be written.
    """
    failure: BaseException | None = None
    with atomic_path(path) as temporary:
        with _writing(path):
            container = av.open(str(temporary), "w", format=VIDEO_FORMATS[path.suffix.lower()])
        output = VideoOutput(path, container, fps)
        try:
            yield output
        except WritingError:
            raise
        except BaseException as error:
            if output.num_frames == 0:
                raise
            failure = error
        output.finish()
    if failure is not None:
        raise failure
