"""Cameras and streams that OpenCV opens: by number or device, by URL, or by a GStreamer pipeline."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ops.common.errors import InputError
from ops.common.opencv import import_cv2

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
RETRY_S = 60.0
_MISSED_S = 1.0  # a camera may miss a few frames
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0  # before a source is opened again
_LOGIN = re.compile(r"(?<=://)[^/@]*@")
_TO_BGR = "videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1"
# Cameras that want a pipeline; the sensor of a Jetson's is read at one of its own sizes, and scaled.
PIPELINES = {
    "csi": "nvarguscamerasrc sensor-id={number} ! video/x-raw(memory:NVMM), width=1280, height=720, format=NV12, "
    "framerate={fps}/1 ! nvvidconv ! video/x-raw, width={width}, height={height}, format=BGRx ! " + _TO_BGR,
    "picamera": "libcamerasrc ! video/x-raw, width={width}, height={height}, framerate={fps}/1 ! " + _TO_BGR,
}


@dataclass(frozen=True)
class CameraOptions:
    """size: (width, height) asked of cameras, as published. fps: frames a second asked of them; None leaves it to them.

    timeout_s: a stream that is silent for so long has dropped. retry_s: try to open what dropped for so long again.
    """

    size: tuple[int, int] = (320, 240)
    fps: int | None = None
    timeout_s: float = TIMEOUT_S
    retry_s: float = RETRY_S


def find_pipeline(text: str, options: CameraOptions) -> str | None:
    """The GStreamer pipeline that `--source` means (`csi`, `csi:1`, `picamera`, or itself); None for none."""
    name, _, number = text.partition(":")
    if name in PIPELINES and (not number or number.isdecimal()):
        width, height = options.size
        return PIPELINES[name].format(number=number or 0, width=width, height=height, fps=options.fps or 30)
    if " ! " not in text:
        return None
    if "appsink" not in text:
        raise InputError(f"--source {text!r}: end the pipeline with `videoconvert ! video/x-raw, format=BGR ! appsink`")
    return text


class OpenCvSource:
    """A camera or a stream, opened by `frames` in the thread that waits for them.

    device: a camera's number or device file, a URL, or a GStreamer pipeline. A URL that knows its length is a video:
    none of its frames is dropped. One that is live and drops is opened again; `notice` says so meanwhile.
    """

    def __init__(self, device: int | str, options: CameraOptions | None = None, *, name: str | None = None) -> None:
        self._cv2 = import_cv2("cameras and URLs need", "requirements-demo.txt")
        self._device, self._options = device, options or CameraOptions()
        self._is_url = isinstance(device, str) and "://" in device and " ! " not in device
        self._is_pipeline = isinstance(device, str) and " ! " in device
        # The page shows the name: without the user and password that a URL may hold.
        self.name = name or (f"camera {device}" if isinstance(device, int) else _LOGIN.sub("", device))
        self.live, self.mirrored, self.fps, self.notice = True, not self._is_url, 30.0, ""
        self._num_frames = 0  # of a video, as far as known

    def frames(self) -> Iterator[np.ndarray]:
        """Yield RGB uint8 (H, W, 3); InputError where the source breaks off for good."""
        capture = self._open()
        count = 0
        while True:
            for image in self._read(capture):
                count += 1
                yield image
            if self._num_frames and count >= self._num_frames - 1:
                return
            if not self.live or not self._options.retry_s:
                raise InputError(
                    f"{self.name} broke off after {count} frames: "
                    + ("the connection or the video is cut" if self._is_url else "was it unplugged?")
                )
            capture = self._reopen()

    def _read(self, capture: Any) -> Iterator[np.ndarray]:
        """Frames until there are no more, or none comes for a while."""
        try:
            last_good = time.monotonic()
            while True:
                good, image = capture.read()
                if good and image is not None:
                    last_good = time.monotonic()
                    yield self._to_rgb(image)
                elif self._is_url or time.monotonic() - last_good > _MISSED_S:
                    return
                else:
                    time.sleep(0.02)
        finally:
            capture.release()

    def _open(self) -> Any:
        """Connect, set `live` and `fps`; return OpenCV's capture."""
        cv2, options = self._cv2, self._options
        if self._is_url:
            timeout_ms = int(1000 * options.timeout_s)
            settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
            capture = cv2.VideoCapture(self._device, cv2.CAP_FFMPEG, settings)
        elif self._is_pipeline:
            check_gstreamer(cv2)
            capture = cv2.VideoCapture(self._device, cv2.CAP_GSTREAMER)
        else:
            by_path = isinstance(self._device, str)
            capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2) if by_path else cv2.VideoCapture(self._device)
            wanted = {cv2.CAP_PROP_FRAME_WIDTH: options.size[0], cv2.CAP_PROP_FRAME_HEIGHT: options.size[1]}
            if options.fps:
                wanted[cv2.CAP_PROP_FPS] = options.fps
            for key, value in wanted.items():
                capture.set(key, value)
        if not capture.isOpened():
            capture.release()
            reason = "it does not answer, or is no video" if self._is_url else "in use, missing, or no permission"
            raise InputError(f"{self.name} cannot be opened ({reason})")
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 1 <= fps <= 1000 else 30.0
        if self._is_url:
            self._num_frames = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            self.live = self._num_frames == 0
        return capture

    def _reopen(self) -> Any:
        """Open a source that dropped, after ever longer waits; InputError when the time for it is over."""
        began, wait_s = time.monotonic(), _FIRST_WAIT_S
        logger.warning("%s dropped: opening it again", self.name)
        for attempt in itertools.count(1):
            self.notice = f"{self.name} dropped: opening it again, attempt {attempt}"
            time.sleep(wait_s)
            try:
                capture = self._open()
            except InputError:
                if time.monotonic() - began > self._options.retry_s:
                    raise InputError(
                        f"{self.name} dropped, and could not be opened again for {self._options.retry_s:g} seconds "
                        "(--retry)"
                    ) from None
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            self.notice = ""
            logger.warning("%s is back", self.name)
            return capture

    def _to_rgb(self, image: np.ndarray) -> np.ndarray:
        if image.ndim == 2 or image.shape[2] == 1:
            return self._cv2.cvtColor(image, self._cv2.COLOR_GRAY2RGB)
        return self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)  # published code fed BGR; see docs/published.md


def check_gstreamer(cv2: Any) -> None:
    """Raise InputError where OpenCV was built without GStreamer."""
    lines = [line for line in cv2.getBuildInformation().splitlines() if "GStreamer:" in line]
    if not any("YES" in line for line in lines):
        raise InputError(
            "this OpenCV was built without GStreamer, as pip's is: use the system's (Debian, Raspberry Pi OS and "
            "JetPack have it as python3-opencv), in an environment made with python3 -m venv --system-site-packages"
        )


def is_device(text: str) -> bool:
    """Whether the text names a camera's device file, plugged in or not: /dev/video0, /dev/v4l/by-id/..."""
    return text.startswith(("/dev/video", "/dev/v4l/")) or Path(text).is_char_device()
