"""Sources of the demo's pictures: video file, folder of frames, the clip in the repository, or what OpenCV opens."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from online_demo.camera.cameras import CameraOptions, OpenCvSource, find_pipeline, is_device
from online_demo.pace import Pace
from ops.common.errors import InputError
from ops.common.opencv import import_cv2
from ops.data.ffmpeg import open_video
from ops.data.lists import IMAGE_EXTENSIONS
from ops.data.pillow_images import read_image
from ops.data.rgb import decoded_frames

SAMPLE = Path(__file__).resolve().parents[1] / "sample.mp4"  # tools/make_demo_sample.py
_FOLDER_FPS = 12.0  # Jester's
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


class Source(Protocol):
    """Frames one after the other.

    live: frames arrive by themselves, and late ones are of no use. fps: frames a second, as far as known. mirrored:
    shown as a mirror image, as a camera faces its user. notice: what keeps it from giving frames, "" if nothing does.
    """

    name: str
    live: bool
    fps: float
    mirrored: bool
    notice: str

    def frames(self) -> Iterator[np.ndarray]:
        """Yield RGB uint8 (H, W, 3); InputError where the source breaks off."""


class FileSource:
    """A video file, decoded by PyAV with the colours that training sees; a cut file is an error where it ends."""

    live, mirrored, notice = False, False, ""

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self.name = name or str(path)
        self._path = path
        with open_video(str(path)) as video:
            rate = video.stream.average_rate
        self.fps = float(rate) if rate and 1 <= rate <= 1000 else 25.0

    def frames(self) -> Iterator[np.ndarray]:
        return decoded_frames(self._path, max_frames=sys.maxsize)


class FolderSource:
    """A folder of image files, in the order of the numbers in their names, 12 a second as in Jester."""

    live, mirrored, notice, fps = False, False, "", _FOLDER_FPS

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        try:
            files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS]
        except OSError as error:
            raise InputError(f"{folder}: cannot list the frames ({error.strerror})") from None
        self._files = sorted((path for path in files if not path.name.startswith(".")), key=_natural_key)
        if not self._files:
            raise InputError(f"{folder}: holds no frames ({', '.join(IMAGE_EXTENSIONS)})")

    def frames(self) -> Iterator[np.ndarray]:
        for path in self._files:
            yield np.asarray(read_image(str(path)))


CHOICES = "a camera's number or device, csi, picamera, a GStreamer pipeline, a video file, a folder, a URL, sample"


def open_source(text: str | None, options: CameraOptions | None = None) -> Source:
    """The source that `--source` names; None is the first camera, or the clip in the repository without a camera.

    Raises:
        InputError: there is no such source.
    """
    if text is None:
        text = "0" if has_camera() else "sample"
    if text == "sample":
        return FileSource(SAMPLE, name="sample")
    options = options or CameraOptions()
    if text.isdecimal() and not os.path.exists(text):
        return OpenCvSource(int(text), options)
    if pipeline := find_pipeline(text, options):
        return OpenCvSource(pipeline, options, name=text if text != pipeline else "GStreamer pipeline")
    if _URL.match(text) or is_device(text):
        return OpenCvSource(text, options)
    path = Path(text)
    if path.is_dir():
        return FolderSource(path)
    if path.is_file():
        return FileSource(path)
    raise InputError(f"--source {text}: no such file or folder; choose from {CHOICES}")


def used_frames(source: Source, rate: float) -> Iterator[np.ndarray]:
    """The frames of a file or folder that go to a network which wants `rate` a second."""
    pace = Pace(rate)
    for number, image in enumerate(source.frames()):
        if pace.takes(number, number / source.fps):
            yield image


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
