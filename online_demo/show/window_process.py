"""The OpenCV window, in a process of its own: python window_process.py TITLE [full-screen]

Started by window.py. Imports only OpenCV and numpy: in one process with PyAV, OpenCV's windows hang for ever (both have
a libxcb of their own), and without a display they end the whole process.

Pictures come on stdin: width and height as little-endian uint32, then RGB bytes. Bytes on stdout: 0 after opening the
window and after each picture; the key's code when the user presses one (`q` for closing the window). Full screen is
switched here. Keys are looked for all the time, whether pictures come or not.
"""

import io
import os
import queue
import signal
import struct
import sys
import threading

_SHOWN = b"\0"
_QUIT = (ord("q"), ord("Q"), 27)
_FULL_SCREEN = (ord("f"), ord("F"))
_WAIT_MS = 10
_DARK = (30, 26, 24)  # BGR, the ground of draw.py


def _read_pictures(pictures: queue.Queue) -> None:
    """Put (height, width, bytes) for each picture, None at the end."""
    # Without Python's buffer, whose lock, held by this thread, would keep the process from ending for a second.
    with os.fdopen(os.dup(0), "rb", buffering=0) as file:
        while len(header := _read(file, 8)) == 8:
            width, height = struct.unpack("<II", header)
            data = _read(file, 3 * width * height)
            if len(data) < 3 * width * height:
                break
            pictures.put((height, width, data))
    pictures.put(None)


def _read(file: io.RawIOBase, size: int) -> bytearray:
    """So many bytes, fewer only at the end of the file."""
    data = bytearray(size)
    view, num_read = memoryview(data), 0
    while num_read < size and (count := file.readinto(view[num_read:])):
        num_read += count
    return data if num_read == size else data[:num_read]


def main(title: str, full_screen: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which then closes this stdin
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not look like a reply
    import cv2
    import numpy as np

    def set_full_screen() -> None:
        state = cv2.WINDOW_FULLSCREEN if full_screen else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(title, cv2.WND_PROP_FULLSCREEN, state)

    def fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
        """The picture as large as the window lets it be, in the middle of dark bands."""
        scale = min(width / picture.shape[1], height / picture.shape[0])
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        whole = np.full((height, width, 3), _DARK, np.uint8)
        method = cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA
        whole[top : top + size[1], left : left + size[0]] = cv2.resize(picture, size, interpolation=method)
        return whole

    # Without the tool bar and status bar of OpenCV's Qt windows.
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
    replies.write(_SHOWN)
    pictures: queue.Queue = queue.Queue()
    threading.Thread(target=_read_pictures, args=(pictures,), daemon=True).start()
    picture, drawn_size = None, None
    while True:
        try:
            item = pictures.get_nowait()
        except queue.Empty:
            is_new = False
        else:
            if item is None:
                return
            is_new, first = True, picture is None
            height, width, data = item
            picture = np.frombuffer(data, np.uint8).reshape(height, width, 3)[:, :, ::-1]
            if first:
                cv2.resizeWindow(title, width, height)
                if full_screen:
                    set_full_screen()
        if picture is not None:
            _, _, *size = cv2.getWindowImageRect(title)
            if is_new or size != drawn_size:
                cv2.imshow(title, fitted(picture, *size) if min(size) > 0 else picture)
                drawn_size = size
        key = cv2.waitKey(_WAIT_MS)
        key = key & 0xFF if key >= 0 else -1
        if is_new:
            replies.write(_SHOWN)
        if key in _FULL_SCREEN:
            full_screen = not full_screen
            set_full_screen()
        elif key in _QUIT or (picture is not None and cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1):
            replies.write(b"q")
            return
        elif key > 0:
            replies.write(bytes([key]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["full-screen"])
