"""The OpenCV window, in a process of its own: python window_process.py TITLE [full-screen]

Started by window.py. Imports only OpenCV and numpy: in one process with PyAV, OpenCV's windows hang for ever (both have
a libxcb of their own), and without a display they end the whole process.

Frames come on stdin: width and height as little-endian uint32, then RGB bytes. After opening the window and after each
frame one byte goes to stdout: `.` for "shown", `q` for "the user ends the demo".
"""

import os
import signal
import struct
import sys

_QUIT = (ord("q"), ord("Q"), 27)
_FULL_SCREEN = (ord("f"), ord("F"))


def main(title: str, full_screen: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which then closes this stdin
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not look like a reply
    import cv2
    import numpy as np

    def set_full_screen() -> None:
        state = cv2.WINDOW_FULLSCREEN if full_screen else cv2.WINDOW_NORMAL
        cv2.setWindowProperty(title, cv2.WND_PROP_FULLSCREEN, state)

    # Without the tool bar and status bar of OpenCV's Qt windows.
    cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    replies.write(b".")
    size = None
    while len(header := sys.stdin.buffer.read(8)) == 8:
        width, height = struct.unpack("<II", header)
        data = sys.stdin.buffer.read(3 * width * height)
        if len(data) < 3 * width * height:
            break
        picture = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if size is None:
            size = width, height
            cv2.resizeWindow(title, width, height)
            if full_screen:
                set_full_screen()
        cv2.imshow(title, np.ascontiguousarray(picture[:, :, ::-1]))
        key = cv2.waitKey(1)
        key = key & 0xFF if key >= 0 else -1
        if key in _FULL_SCREEN:
            full_screen = not full_screen
            set_full_screen()
        closed = cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1
        replies.write(b"q" if closed or key in _QUIT else b".")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["full-screen"])
