"""Sources of the demo's pictures: camera, video file, folder of frames, URL, or the clip in the repository."""

from __future__ import annotations

import itertools
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ops.common.errors import InputError
from ops.common.opencv import import_cv2
from ops.data.ffmpeg import decoded_frames, open_video
from ops.data.images import read_tensor

CAMERA_SIZE = (320, 240)  # as published
SAMPLE = Path(__file__).resolve().parents[1] / "sample.mp4"  # tools/make_demo_sample.py
TIMEOUT_S = 10.0
EVERY_SECOND = 2
_FOLDER_FPS = 12.0  # Jester's
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_RETRY_S = 1.0  # a camera may miss a few frames


class Source(Protocol):
    """Frames one after the other.

    live: frames arrive by themselves, and late ones are of no use. fps: frames a second, as far as known. every: one
    frame of so many goes to the network by default. mirrored: shown as a mirror image, as a camera faces its user.
    """

    name: str
    live: bool
    fps: float
    every: int
    mirrored: bool

    def frames(self) -> Iterator[np.ndarray]:
        """Yield RGB uint8 (H, W, 3); InputError where the source breaks off."""


class FileSource:
    """A video file, decoded by PyAV with the colours that training sees; a cut file is an error where it ends."""

    live, mirrored, every = False, False, EVERY_SECOND

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self.name = name or str(path)
        self._path = path
        with open_video(str(path)) as container:
            rate = container.streams.video[0].average_rate
        self.fps = float(rate) if rate and 1 <= rate <= 1000 else 25.0

    def frames(self) -> Iterator[np.ndarray]:
        return decoded_frames(self._path, max_frames=sys.maxsize)


class FolderSource:
    """A folder of image files, in the order of the numbers in their names. All are used: Jester has 12 a second."""

    live, mirrored, every, fps = False, False, 1, _FOLDER_FPS

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        try:
            files = [path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES]
        except OSError as error:
            raise InputError(f"{folder}: cannot list the frames ({error.strerror})") from None
        self._files = sorted((path for path in files if not path.name.startswith(".")), key=_natural_key)
        if not self._files:
            raise InputError(f"{folder}: holds no frames ({', '.join(_IMAGE_SUFFIXES)})")

    def frames(self) -> Iterator[np.ndarray]:
        for path in self._files:
            yield np.ascontiguousarray(read_tensor(str(path)).permute(1, 2, 0).numpy())


class OpenCvSource:
    """A camera or a URL, opened by `frames` in the thread that waits for them.

    device: a camera's index, or a URL. A URL that knows its length is a video: none of its frames is dropped.
    """

    every = EVERY_SECOND

    def __init__(self, device: int | str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._cv2 = import_cv2("cameras and URLs need", "requirements-demo.txt")
        self._device, self._timeout_s = device, timeout_s
        self.is_camera = isinstance(device, int)
        self.name = f"camera {device}" if self.is_camera else str(device)
        self.live, self.mirrored, self.fps = True, self.is_camera, 30.0
        self._num_frames = 0  # as far as known

    def _open(self) -> Any:
        """Connect, set `live` and `fps`; return OpenCV's capture."""
        cv2 = self._cv2
        if self.is_camera:
            capture = cv2.VideoCapture(self._device)
            for key, side in zip((cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT), CAMERA_SIZE, strict=True):
                capture.set(key, side)
        else:
            timeout_ms = int(1000 * self._timeout_s)
            settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
            capture = cv2.VideoCapture(self._device, cv2.CAP_FFMPEG, settings)
        if not capture.isOpened():
            capture.release()
            reason = "in use, missing, or no permission" if self.is_camera else "it does not answer, or is no video"
            raise InputError(f"{self.name} cannot be opened ({reason}); other sources: {CHOICES}")
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 1000 else 30.0
        if not self.is_camera:
            self._num_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            self.live = self._num_frames == 0
        return capture

    def frames(self) -> Iterator[np.ndarray]:
        capture = self._open()
        try:
            count, last_good = 0, time.monotonic()
            while True:
                good, image = capture.read()
                if good and image is not None:
                    count, last_good = count + 1, time.monotonic()
                    yield self._to_rgb(image)
                elif self._num_frames and count >= self._num_frames - 1:
                    return
                elif not self.is_camera or time.monotonic() - last_good > _RETRY_S:
                    raise InputError(
                        f"{self.name} broke off after {count} frames"
                        + (": was it unplugged?" if self.is_camera else ": the connection or the video is cut")
                    )
                else:
                    time.sleep(0.02)
        finally:
            capture.release()

    def _to_rgb(self, image: np.ndarray) -> np.ndarray:
        if image.ndim == 2 or image.shape[2] == 1:
            return self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2RGB)
        return self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)  # published code fed BGR; see README, Deviations


CHOICES = "a camera's number, a video file, a folder of frames, a URL, sample"


def open_source(text: str | None, *, timeout_s: float = TIMEOUT_S) -> Source:
    """The source that `--source` names; None is the first camera, or the clip in the repository without a camera.

    Raises:
        InputError: there is no such source.
    """
    if text is None:
        text = "0" if has_camera() else "sample"
    if text == "sample":
        return FileSource(SAMPLE, name="sample")
    if text.isdecimal() and not os.path.exists(text):
        return OpenCvSource(int(text), timeout_s=timeout_s)
    if _URL.match(text):
        return OpenCvSource(text, timeout_s=timeout_s)
    path = Path(text)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return FileSource(path)
    raise InputError(f"--source {text}: no such file or folder; choose from {CHOICES}")


def used_frames(source: Source) -> Iterator[np.ndarray]:
    """The frames that go to the network by default, such as every second one."""
    return itertools.islice(source.frames(), None, None, source.every)


def has_camera() -> bool:
    """Whether a first camera can be opened; without trying where Linux lists none."""
    if sys.platform == "linux" and not os.path.exists("/dev/video0"):
        return False
    try:
        cv2 = import_cv2("cameras and URLs need", "requirements-demo.txt")
    except InputError:
        return False
    capture = cv2.VideoCapture(0)
    found = capture.isOpened()
    capture.release()
    return found


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
