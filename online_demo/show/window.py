"""A window on the screen: q or Esc ends the demo, f toggles full screen, and so does closing it."""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from online_demo.show.outputs import Shown
from ops.common.errors import InputError
from ops.common.opencv import import_cv2

WINDOW_NAME = "TSM"
_SCRIPT = Path(__file__).resolve().parent / "window_process.py"
_ANSWER_TIMEOUT_S = 60.0
_INSTEAD = "use --no-window (with --output for a video) or --serve"


class Window:
    """An `Output` (online_demo/outputs.py). The window itself is another process's: see window_process.py.

    Raises:
        InputError: no window can be opened here.
    """

    needs_picture = True

    def __init__(self, *, full_screen: bool = False) -> None:
        check_display()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close; a pipe could fill up)
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT), WINDOW_NAME, *(["full-screen"] if full_screen else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read_answers, name="window", daemon=True)
        self._reader.start()
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
        """Take the window away."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._errors.close()

    def _read_answers(self) -> None:
        """In a thread, as Windows cannot wait for a pipe with a limit."""
        while answer := self._process.stdout.read(1):
            self._answers.put(answer)
        self._answers.put(b"")

    def _answer(self) -> bytes:
        try:
            answer = self._answers.get(timeout=_ANSWER_TIMEOUT_S)
        except queue.Empty:
            raise InputError(f"the window does not answer: {_INSTEAD}") from None
        if not answer:
            raise self._failure()
        return answer

    def _failure(self) -> InputError:
        """Why the process ended, from what it said last."""
        status = self._process.wait(timeout=_ANSWER_TIMEOUT_S)
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        if "ModuleNotFoundError" in text or "ImportError" in text:
            try:
                import_cv2("a window needs", "requirements-demo.txt")
            except InputError as error:
                return InputError(f"{error}; or {_INSTEAD}")
        if "The function is not implemented" in text:
            return InputError(
                "this OpenCV was built without windows (opencv-python-headless): pip uninstall opencv-python-headless, "
                f"pip install opencv-python; or {_INSTEAD}"
            )
        lines = [line.strip() for line in text.splitlines() if line.strip() and "QFontDatabase" not in line]
        told = next((line for line in lines if "display" in line or "error" in line.lower()), None)
        reason = told or ", ".join([f"OpenCV ended with status {status}", *lines[-1:]])
        return InputError(f"no window can be opened ({reason}): {_INSTEAD}")


def check_display() -> None:
    """Raise InputError where there is no display, before anything slow is begun."""
    if not sys.platform.startswith(("linux", "freebsd")):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InputError(f"no display here (DISPLAY and WAYLAND_DISPLAY are not set): {_INSTEAD}")
