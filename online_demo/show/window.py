"""A window on the screen. controls.py lists its keys; closing it ends the demo."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from online_demo.show.controls import Controls
from online_demo.show.outputs import Shown
from ops.common.errors import InputError
from ops.common.opencv import import_cv2

WINDOW_NAME = "TSM"
_SCRIPT = Path(__file__).resolve().parent / "window_process.py"
_INSTEAD = "use --no-window (with --output for a video) or --serve"


class Window:
    """An `Output` (outputs.py) whose keys go to `controls`. The window belongs to another process: window_process.py.

    Raises:
        InputError: no window can be opened here.
    """

    view = "window"

    def __init__(self, controls: Controls, *, full_screen: bool = False) -> None:
        check_display()
        try:
            import_cv2("a window needs", "requirements-demo.txt")
        except InputError as error:
            raise InputError(f"{error}; or {_INSTEAD}") from None
        self._controls = controls
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close; a pipe could fill up)
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), WINDOW_NAME, *(["full-screen"] if full_screen else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        self._ended = False
        self._ready = threading.Semaphore(0)  # released for each picture shown, and at the end
        self._thread = threading.Thread(target=self._listen, name="window", daemon=True)
        self._thread.start()
        self._ready.acquire()
        if self._ended:
            failure = self._failure()
            self.close()
            raise failure
        controls.notify("h shows the keys")

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        height, width = picture.shape[:2]
        try:
            for part in (struct.pack("<II", width, height), memoryview(np.ascontiguousarray(picture)).cast("B")):
                while part := part[self._process.stdin.write(part) :]:
                    pass
            self._ready.acquire()
        except BrokenPipeError:
            pass
        if self._controls.quit:
            return False
        if self._ended:
            raise self._failure()
        return True

    def close(self) -> None:
        """Close the window."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        self._process.stdout.close()
        self._errors.close()

    def _listen(self) -> None:
        """Take the bytes that the process writes, until it ends."""
        while byte := self._process.stdout.read(1):
            if byte == b"\0":
                self._ready.release()
            else:
                self._controls.press(byte.decode("latin-1"))
        self._ended = True
        self._ready.release()

    def _failure(self) -> InputError:
        """Why the process ended, from its last words on stderr."""
        status = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        if "The function is not implemented" in text:
            return InputError(
                "this OpenCV was built without windows (opencv-python-headless): pip uninstall opencv-python-headless, "
                f"pip install opencv-python; or {_INSTEAD}"
            )
        lines = [line.strip() for line in text.splitlines() if line.strip()] or [f"OpenCV ended with status {status}"]
        reason = next((line for line in lines if "display" in line), lines[-1])
        return InputError(f"no window can be opened ({reason}): {_INSTEAD}")


def check_display() -> None:
    """Raise InputError where there is no display, before anything slow begins."""
    if not sys.platform.startswith(("linux", "freebsd")):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError(f"no display here (DISPLAY and WAYLAND_DISPLAY are not set): {_INSTEAD}")
