"""A window on the screen: q, Esc or closing it ends the demo, f toggles full screen."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from online_demo.show.outputs import Shown
from ops.common.errors import InputError
from ops.common.opencv import import_cv2

WINDOW_NAME = "TSM"
_SCRIPT = Path(__file__).resolve().parent / "window_process.py"
_INSTEAD = "use --no-window (with --output for a video) or --serve"


class Window:
    """An `Output` (outputs.py). The window itself belongs to another process: see window_process.py.

    Raises:
        InputError: no window can be opened here.
    """

    needs_picture = True

    def __init__(self, *, full_screen: bool = False) -> None:
        check_display()
        try:
            import_cv2("a window needs", "requirements-demo.txt")
        except InputError as error:
            raise InputError(f"{error}; or {_INSTEAD}") from None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close; a pipe could fill up)
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), WINDOW_NAME, *(["full-screen"] if full_screen else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        try:
            self._answer()
        except InputError:
            self.close()
            raise

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        height, width = picture.shape[:2]
        try:
            for part in (struct.pack("<II", width, height), memoryview(np.ascontiguousarray(picture)).cast("B")):
                while part := part[self._process.stdin.write(part) :]:
                    pass
        except BrokenPipeError:
            raise self._failure() from None
        return self._answer() == b"."

    def close(self) -> None:
        """Close the window."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> bytes:
        answer = self._process.stdout.read(1)
        if not answer:
            raise self._failure()
        return answer

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
