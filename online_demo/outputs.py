"""Where results go: a window, a video file, lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from online_demo.recognizer import Result
from online_demo.sources import import_cv2
from ops.errors import InputError
from ops.files import atomic_path

WINDOW_NAME = "TSM"
VIDEO_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TIME_BASE = 90_000
_PROBE_TIMEOUT_S = 30
_KEYS_QUIT = (ord("q"), ord("Q"), 27)
_KEYS_FULL_SCREEN = (ord("f"), ord("F"))


@dataclass(frozen=True)
class Shown:
    """A frame on its way out. result: the network's last one; is_new: it is of this very frame. time_s: in the stream.

    capture_ms, draw_ms: reading and drawing it. fps: frames shown a second.
    """

    number: int
    time_s: float
    result: Result | None
    is_new: bool
    capture_ms: float
    draw_ms: float
    fps: float

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
    """Takes frame after frame. needs_picture: wants the drawn one."""

    needs_picture: bool

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        """Take a frame; False ends the demo, as its user wished."""


class JsonLines:
    """A line for every result."""

    needs_picture = False

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        if shown.is_new:
            print(json.dumps(shown.to_dict(), ensure_ascii=False), file=self._file, flush=True)
        return True


class Window:
    """An OpenCV window: q or Esc ends the demo, f toggles full screen, and so does closing it."""

    needs_picture = True

    def __init__(self, *, full_screen: bool = False) -> None:
        self._cv2 = import_cv2()
        check_display()
        self._full_screen = full_screen
        self._cv2.namedWindow(WINDOW_NAME, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        self._sized = False

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        cv2 = self._cv2
        if not self._sized:
            cv2.resizeWindow(WINDOW_NAME, picture.shape[1], picture.shape[0])
            if self._full_screen:
                self._apply_full_screen()
            self._sized = True
        cv2.imshow(WINDOW_NAME, np.ascontiguousarray(picture[:, :, ::-1]))
        key = cv2.waitKey(1)
        key = key & 0xFF if key >= 0 else -1
        if key in _KEYS_FULL_SCREEN:
            self._full_screen = not self._full_screen
            self._apply_full_screen()
        closed = cv2.getWindowProperty(WINDOW_NAME, cv2.WND_PROP_VISIBLE) < 1
        return key not in _KEYS_QUIT and not closed

    def close(self) -> None:
        """Take the window away."""
        with contextlib.suppress(self._cv2.error):
            self._cv2.destroyAllWindows()

    def _apply_full_screen(self) -> None:
        cv2 = self._cv2
        state = cv2.WINDOW_FULLSCREEN if self._full_screen else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(WINDOW_NAME, cv2.WND_PROP_FULLSCREEN, state)


def check_display() -> None:
    """Raise InputError where no window can open.

    Asked first because opencv-python without a display takes the whole process down.
    """
    others = "use --no-window (with --output for a video) or --serve"
    on_x = sys.platform.startswith(("linux", "freebsd"))
    if on_x and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError(f"no display here (DISPLAY and WAYLAND_DISPLAY are not set): {others}")
    cv2 = import_cv2()
    toolkit = next((line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), "")
    if toolkit.rstrip().endswith("NONE"):
        raise InputError(
            "this OpenCV was built without windows (opencv-python-headless): "
            f"pip uninstall opencv-python-headless, pip install opencv-python; or {others}"
        )
    if on_x:
        # DISPLAY may name a server that is gone or refuses us; only trying tells, and in a process of its own.
        script = f"import cv2; cv2.namedWindow('{WINDOW_NAME}'); cv2.waitKey(1); cv2.destroyAllWindows()"
        try:
            done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=_PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise InputError(f"the display does not answer: {others}") from None
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise InputError(f"no window can be opened ({reason[0] if reason else 'OpenCV crashed'}): {others}")


class VideoOutput:
    """Writes pictures as H.264 (MPEG-4 where PyAV lacks the encoder), each at its own time.

    num_frames: written so far. broken: writing failed, and the container must not be touched any more.
    """

    needs_picture = True

    def __init__(self, path: Path, container: Any, fps: float) -> None:
        self.num_frames, self.broken = 0, False
        self._path, self._container, self._fps = path, container, fps
        self._stream: Any = None
        self._last_pts = -1

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        import av

        if self._stream is None:
            self._stream = self._add_stream(picture.shape[1], picture.shape[0])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        pts = max(self._last_pts + 1, round(shown.time_s * _TIME_BASE))
        frame.pts, frame.time_base, self._last_pts = pts, Fraction(1, _TIME_BASE), pts
        self._write(frame)
        self.num_frames += 1
        return True

    def finish(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        if self.num_frames == 0:
            raise InputError(f"{self._path}: the source gave no frame, there is no video to write")
        self._write(None)
        with self._writing():
            self._container.close()

    def _write(self, frame: Any) -> None:
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self.broken = True
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{self._path}: cannot write the video ({reason}); free some space?") from error

    def _add_stream(self, width: int, height: int) -> Any:
        import av

        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = {"preset": "veryfast", "crf": "20", "bf": "0"} if codec == "libx264" else {"qmin": "2", "qmax": "5"}
        stream = self._container.add_stream(codec, rate=max(1, round(self._fps)), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TIME_BASE)
        return stream


def check_video_path(path: Path) -> None:
    """Raise InputError for a name whose format is not known."""
    if path.suffix.lower() not in VIDEO_FORMATS:
        raise InputError(f"--output {path}: give a name that ends with {', '.join(VIDEO_FORMATS)}")


@contextlib.contextmanager
def open_video_output(path: Path, fps: float) -> Iterator[VideoOutput]:
    """A video to write; it becomes `path`, complete, however the block ends: a broken source leaves what came before.

    Raises:
        InputError: it cannot be written.
    """
    import av

    check_video_path(path)
    failure: BaseException | None = None
    with atomic_path(path) as temporary:
        try:
            container = av.open(str(temporary), "w", format=VIDEO_FORMATS[path.suffix.lower()])
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{path}: cannot write the video ({error.strerror or error})") from error
        output = VideoOutput(path, container, fps)
        try:
            yield output
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure = error
        if failure is not None and (output.broken or output.num_frames == 0):
            raise failure
        output.finish()
    if failure is not None:
        raise failure
