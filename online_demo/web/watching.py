"""What the web page shows and takes: the newest picture for who watches, and browsers that send their own camera."""

from __future__ import annotations

import contextlib
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from online_demo.recognizer import Recognizer
from online_demo.show.outputs import Shown
from ops.common.errors import InputError
from ops.data.images import check_scans

MAX_FRAME_PIXELS = 1920 * 1080
MAX_SESSIONS = 8
MAX_VIEWERS = 16
SESSION_IDLE_S = 60.0
_JPEG_QUALITY = 85


class Page:
    """What the page shows of the demo's own source: an `Output` of its loop. Pictures are coded only while watched."""

    needs_picture = True

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._number = 0  # of pictures so far
        self._jpeg = b""
        self._result: tuple[int, Shown] | None = None  # the newest, and the number of its picture
        self._num_viewers = 0
        self._closed = False

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        jpeg = encode_jpeg(picture) if self._num_viewers else b""
        with self._condition:
            self._number, self._jpeg = self._number + 1, jpeg
            if shown.is_new:
                self._result = self._number, shown
            self._condition.notify_all()
        return True

    def close(self) -> None:
        """Send everybody home."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @contextlib.contextmanager
    def viewer(self) -> Iterator[bool]:
        """Count somebody who watches; gives False where there are too many."""
        with self._condition:
            admitted = self._num_viewers < MAX_VIEWERS
            self._num_viewers += admitted
        try:
            yield admitted
        finally:
            with self._condition:
                self._num_viewers -= admitted

    def picture_behind(self, number: int, timeout_s: float = 1.0) -> tuple[int, bytes]:
        """Number and JPEG of the newest picture behind `number`; (number, b"") if there is none in time, (-1, b"") if
        it is all over."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._number > number, timeout_s)
            if self._closed:
                return -1, b""
            return (self._number, self._jpeg) if self._number > number else (number, b"")

    def result_behind(self, number: int, timeout_s: float = 1.0) -> tuple[int, Shown | None]:
        """The same for the newest result."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or (self._result or (0,))[0] > number, timeout_s)
            if self._closed:
                return -1, None
            return self._result if self._result is not None and self._result[0] > number else (number, None)


@dataclass
class Session:
    """A browser's stream. `lock` is held while a frame of it is recognised."""

    recognizer: Recognizer
    used_at: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """Browsers that send their own camera, each with a state of its own; forgotten when silent for a minute."""

    def __init__(self, make_recognizer: Callable[[], Recognizer]) -> None:
        self._make_recognizer = make_recognizer
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(self) -> str | None:
        """The name of a new session, which cannot be guessed; None where there are too many."""
        with self._lock:
            now = time.monotonic()
            for name in [n for n, session in self._sessions.items() if now - session.used_at > SESSION_IDLE_S]:
                del self._sessions[name]
            if len(self._sessions) >= MAX_SESSIONS:
                return None
            name = secrets.token_urlsafe(16)
            self._sessions[name] = Session(self._make_recognizer())
            return name

    def find(self, name: str) -> Session | None:
        """The session, its idle time begun anew."""
        with self._lock:
            session = self._sessions.get(name)
            if session is not None:
                session.used_at = time.monotonic()
            return session

    def remove(self, name: str) -> None:
        with self._lock:
            self._sessions.pop(name, None)


def encode_jpeg(picture: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG -> RGB uint8 (H, W, 3).

    Raises:
        InputError: not a JPEG, damaged, larger than MAX_FRAME_PIXELS, or of too many scans.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_FRAME_PIXELS:
                raise InputError(f"{image.width}x{image.height} pixels are more than the limit of {MAX_FRAME_PIXELS}")
            check_scans("the picture", data)
            return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise InputError(f"not a JPEG picture, or a damaged one ({error})") from None
