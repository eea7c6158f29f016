"""Headless Chromium for tests, driven over its DevTools pipe with the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def find_chromium() -> str:
    """Its path ($CHROMIUM if it has another name); skips the test where it is missing."""
    found = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if found is None or shutil.which("bash") is None:
        pytest.skip("Chromium, or bash to give it its pipe, is not installed (apt-get install chromium)")
    return found


class Browser:
    """One page in a running browser."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._buffer, self._number = b"", 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def open(self, url: str) -> None:
        """Go to a page, without waiting for it."""
        self._call("Page.navigate", session=self._session, url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        reply = self._call("Runtime.evaluate", session=self._session, expression=expression, returnByValue=True,
                           awaitPromise=True, userGesture=True)  # fmt: skip
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float) -> Any:
        """The value of an expression as soon as it is true; fails with the page's text when time is up."""
        deadline = time.monotonic() + timeout_s
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, f"{expression} is not true: {self.evaluate('document.body.innerText')}"
            time.sleep(0.1)
        return value

    def look(self, width: int, height: int, *, dark: bool = False, forced_colors: bool = False) -> None:
        """Give the page a size and the colours that its reader prefers."""
        self._call("Emulation.setDeviceMetricsOverride", session=self._session, width=width, height=height,
                   deviceScaleFactor=1, mobile=False)  # fmt: skip
        features = {"prefers-color-scheme": "dark" if dark else "light"}
        features["forced-colors"] = "active" if forced_colors else "none"
        pairs = [{"name": name, "value": value} for name, value in features.items()]
        self._call("Emulation.setEmulatedMedia", session=self._session, features=pairs)

    def deny_camera(self, origin: str) -> None:
        """As a user who answers the browser's question with no."""
        permission = {"name": "camera"}
        self._call("Browser.setPermission", origin=origin, permission=permission, setting="denied")

    def press(self, key: str) -> None:
        """Press a key, such as Tab or Enter."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self._call("Input.dispatchKeyEvent", session=self._session, type=kind, key=key, code=key,
                       windowsVirtualKeyCode=codes[key], **more)  # fmt: skip

    def screenshot(self, path: Path) -> None:
        """Save a PNG of the page."""
        data = self._call("Page.captureScreenshot", session=self._session, format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            reply = self._receive(deadline)
            if reply.get("id") == self._number:
                assert "error" not in reply, reply["error"]
                return reply["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read_fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            data = os.read(self._read_fd, 1 << 16)
            assert data, "Chromium has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)


@contextlib.contextmanager
def headless(folder: Path, *options: str) -> Iterator[Browser]:
    """A browser with a new profile in `folder`."""
    chromium = find_chromium()
    from_us, to_chromium = os.pipe()
    from_chromium, to_us = os.pipe()
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--mute-audio", "--disable-background-networking", "--disable-component-update", "--window-size=1000,760",
        f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", *options, "about:blank",
    ]  # fmt: skip
    # Chromium talks over descriptors 3 and 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{to_us}', "bash", *command]
    process = subprocess.Popen(
        shell, pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(from_us)
    os.close(to_us)
    try:
        yield Browser(from_chromium, to_chromium)
    finally:
        os.close(to_chromium)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        os.close(from_chromium)
