"""The demo on a web page, for boards without a screen: the pictures, the answers, the latencies.

    /               the page, with its scripts and /page.css
    /watch          a WebSocket: the demo's own source, an answer as JSON and then its picture as JPEG; the browser
                    acknowledges each pair, so that none piles up on the way
    /camera         a WebSocket: a JPEG of the browser's own camera in, its answer as JSON out

Both begin with a message about the demo (messages.py). Each /camera is a stream with a state of its own, which ends
with it. No other file can be asked for: those of the page are read once, at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiohttp import WSMsgType, web

from online_demo.recognizer import Recognizer
from online_demo.show.outputs import Shown
from online_demo.web import messages
from online_demo.web.guard import Connection, add_headers, refuse_other_sites
from online_demo.web.jpeg import decode_jpeg, encode_jpeg
from ops.common.errors import InputError

MAX_FRAME_BYTES = 2_000_000
MAX_CAMERAS = 8
MAX_VIEWERS = 16
TIMEOUT_S = 20.0  # of a browser that neither takes what is sent nor answers a ping
STATUS_S = 1.0  # a viewer hears at least so often; its page takes a longer silence for a broken connection
_ON_THE_WAY = 2  # pictures that a viewer has not acknowledged yet
_PAGE_FOLDER = Path(__file__).resolve().parent / "page"
_CONTENT_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


@dataclass(frozen=True)
class _Published:
    """A frame for the viewers. arrived: when it came from its source, by time.perf_counter."""

    message: dict[str, object]
    jpeg: bytes
    arrived: float


class PageServer:
    """Serves the page from a thread of its own; a context manager, and an `Output` of the demo's loop.

    make_recognizer: called for each browser that sends its camera. allowed_hosts: further names of this machine. tls:
    for https.

    Raises:
        InputError: the address cannot be listened on.
    """

    view = "frame"

    def __init__(
        self,
        address: tuple[str, int],
        make_recognizer: Callable[[], Recognizer],
        about: messages.About,
        *,
        allowed_hosts: Collection[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        host, port = address
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server(address, family=family)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--serve {host}:{port}: cannot listen there ({reason})") from None
        self._make_recognizer, self._about = make_recognizer, about
        self._allowed_hosts, self._tls = allowed_hosts, tls
        self.num_viewers = self.num_cameras = 0
        self._files = {f"/{path.name}": path for path in _PAGE_FOLDER.iterdir() if path.suffix in _CONTENT_TYPES}
        self._files["/"] = self._files.pop("/index.html")
        self._texts = {url: path.read_text("utf-8") for url, path in self._files.items()}
        self._browsers: set[web.WebSocketResponse] = set()
        self._status = ""
        self._newest: _Published | None = None
        self._fresh = asyncio.Event()  # set, and replaced, when there is a newer one
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="page", daemon=True)

    @property
    def url(self) -> str:
        """Where to open the page on this machine."""
        host, port = self._socket.getsockname()[:2]
        host = "localhost" if host in ("0.0.0.0", "::") else host
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/"

    def __enter__(self) -> PageServer:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        """Hand a frame to the browsers that watch; without one, pictures are not encoded."""
        self._status = shown.status
        if self.num_viewers and shown.result is not None:
            figures = {"capture_ms": shown.capture_ms, "draw_ms": shown.draw_ms, "fps": shown.fps}
            message = messages.answer(shown.result, **figures)
            newest = _Published(message, encode_jpeg(picture), shown.arrived)
            self._loop.call_soon_threadsafe(self._publish, newest)
        return True

    def _publish(self, newest: _Published) -> None:
        self._newest = newest
        self._fresh.set()
        self._fresh = asyncio.Event()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[refuse_other_sites(self._allowed_hosts)])
        app.on_response_prepare.append(add_headers)
        for url in self._texts:
            app.router.add_get(url, self._send_file)
        app.router.add_get("/watch", self._watch, allow_head=False)
        app.router.add_get("/camera", self._recognize_camera, allow_head=False)
        # A browser that goes away cancels its handler, which frees the place that it had.
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        listening = await self._loop.create_server(
            lambda: Connection(runner.server, loop=self._loop, access_log=None), sock=self._socket, ssl=self._tls
        )
        self._started.set()
        await self._stopped.wait()
        listening.close()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(_say_goodbye, self._browsers), return_exceptions=True), 1)
        await runner.cleanup()
        await asyncio.sleep(0)  # the connections that it closed end in the loop's next round

    async def _send_file(self, request: web.Request) -> web.Response:
        kind = _CONTENT_TYPES[self._files[request.path].suffix]
        return web.Response(text=self._texts[request.path], content_type=kind)

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        """Open a WebSocket, and tell the browser about the demo."""
        browser = web.WebSocketResponse(heartbeat=TIMEOUT_S, max_msg_size=MAX_FRAME_BYTES, compress=False)
        await browser.prepare(request)
        await browser.send_json(self._about.message())
        return browser

    async def _watch(self, request: web.Request) -> web.WebSocketResponse:
        """Send frame after frame until the browser goes away; one that is slow misses some."""
        browser = await self._accept(request)
        if self.num_viewers >= MAX_VIEWERS:
            text = f"{MAX_VIEWERS} pages are watching already, which is the limit."
            await browser.send_json(messages.refusal("full", text))
            await browser.close()
            return browser
        self.num_viewers += 1
        room, sent, delays = asyncio.Semaphore(_ON_THE_WAY), deque(), deque(maxlen=1)
        with self._connected(browser):
            sender = asyncio.create_task(self._send_frames(browser, room, sent, delays))
            try:
                async for _ in browser:  # an acknowledgement
                    if sent:
                        delays.append(1e3 * (time.perf_counter() - sent.popleft()))
                        room.release()
            finally:
                sender.cancel()
                self.num_viewers -= 1
        return browser

    async def _send_frames(
        self, browser: web.WebSocketResponse, room: asyncio.Semaphore, sent: deque[float], delays: deque[float]
    ) -> None:
        """Send each new frame, or the status while there is none; `delays`: from a frame's arrival to its showing."""
        newest = self._newest
        with contextlib.suppress(ConnectionError):
            while True:
                if newest is self._newest:
                    try:
                        await asyncio.wait_for(self._fresh.wait(), STATUS_S)
                    except asyncio.TimeoutError:
                        await browser.send_json(messages.status(self._status))
                        continue
                await room.acquire()
                newest = self._newest
                delay = {"delay_ms": round(delays.pop(), 2)} if delays else {}
                sent.append(newest.arrived)
                await browser.send_json({**newest.message, **delay})
                await browser.send_bytes(newest.jpeg)

    async def _recognize_camera(self, request: web.Request) -> web.WebSocketResponse:
        """Answer each JPEG with its result; a frame that cannot be used ends the stream with an error."""
        browser = await self._accept(request)
        if self.num_cameras >= MAX_CAMERAS:
            text = f"{MAX_CAMERAS} browsers send their cameras already, which is the limit."
            await browser.send_json(messages.refusal("full", text))
            await browser.close()
            return browser
        self.num_cameras += 1
        with self._connected(browser):
            try:
                answer = _Answers(self._make_recognizer())
                async for message in browser:
                    if message.type == WSMsgType.BINARY:
                        await browser.send_json(await asyncio.to_thread(answer, message.data))
            except InputError as error:
                await browser.send_json(messages.refusal("frame", str(error)))
            finally:
                self.num_cameras -= 1
        await browser.close()
        return browser

    @contextlib.contextmanager
    def _connected(self, browser: web.WebSocketResponse) -> Iterator[None]:
        """Keep it among those that are told when the demo ends."""
        self._browsers.add(browser)
        try:
            yield
        finally:
            self._browsers.discard(browser)


async def _say_goodbye(browser: web.WebSocketResponse) -> None:
    await browser.send_json(messages.ENDED)
    await browser.close()


class _Answers:
    """A browser's JPEG -> its answer; the last one again where the frame comes before the network wants one."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer, self._number, self._last = recognizer, 0, {}

    def __call__(self, jpeg: bytes) -> dict[str, object]:
        began = time.perf_counter()
        image = decode_jpeg(jpeg)
        decode_ms = 1e3 * (time.perf_counter() - began)
        if self._recognizer.takes(self._number, began):
            self._last = messages.answer(self._recognizer(image, began), capture_ms=decode_ms)
        self._number += 1
        return self._last
