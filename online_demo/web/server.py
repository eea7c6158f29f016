"""The demo on a web page, for boards without a screen: the annotated stream, the five best classes, the latencies.

    /               the page, with /page.js and /page.css
    /stream.mjpg    the annotated pictures of the demo's own source
    /results        their results and latencies, as server-sent events
    /camera         a WebSocket: a JPEG of the browser's own camera in, its result as JSON out

Each WebSocket is a stream with a state of its own, which ends with it. No other file can be asked for: the three of the
page are read once, at the start.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from aiohttp import WSMsgType, web
from PIL import Image

from online_demo.recognizer import Recognizer
from online_demo.show.outputs import Shown
from ops.common.errors import InputError

MAX_FRAME_BYTES = 2_000_000
MAX_FRAME_PIXELS = 1920 * 1080
MAX_CAMERAS = 8
MAX_VIEWERS = 16
TIMEOUT_S = 20.0  # of a browser that neither takes what is sent nor answers a ping
_JPEG_QUALITY = 85
_PAGE_FOLDER = Path(__file__).resolve().parent / "page"
_PAGE_FILES = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css"}
_CONTENT_TYPES = {
    "/": "text/html",
    "/page.js": "text/javascript",
    "/page.css": "text/css",
    "/stream.mjpg": "multipart/x-mixed-replace; boundary=frame",
    "/results": "text/event-stream",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "tsm",
    "X-Content-Type-Options": "nosniff",
}


class PageServer:
    """Serves the page from a thread of its own; a context manager, and an `Output` of the demo's loop.

    make_recognizer: called for each browser that sends its camera.

    Raises:
        InputError: the address cannot be listened on.
    """

    needs_picture = True

    def __init__(self, address: tuple[str, int], make_recognizer: Callable[[], Recognizer]) -> None:
        host, port = address
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server(address, family=family)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--serve {host}:{port}: cannot listen there ({reason})") from None
        self._make_recognizer = make_recognizer
        self.num_viewers = self.num_cameras = 0
        self._files = {url: (_PAGE_FOLDER / name).read_text("utf-8") for url, name in _PAGE_FILES.items()}
        self._newest: dict[str, bytes] = {}  # what each stream sends of the frame shown last
        self._fresh = asyncio.Event()  # set, and replaced, when there is a newer one
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="page", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def __enter__(self) -> PageServer:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def show(self, picture: np.ndarray | None, shown: Shown) -> bool:
        """Hand a frame to the browsers that watch; without one, pictures are not encoded."""
        if self.num_viewers:
            jpeg = encode_jpeg(picture)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            event = f"data: {json.dumps(shown.to_dict())}\n\n"
            newest = {"/stream.mjpg": head.encode() + jpeg + b"\r\n", "/results": event.encode()}
            self._loop.call_soon_threadsafe(self._publish, newest)
        return True

    def _publish(self, newest: dict[str, bytes]) -> None:
        self._newest = newest
        self._fresh.set()
        self._fresh = asyncio.Event()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[_refuse_other_sites])
        app.on_response_prepare.append(_add_headers)
        for url in _PAGE_FILES:
            app.router.add_get(url, self._send_file)
        app.router.add_get("/stream.mjpg", self._stream, allow_head=False)
        app.router.add_get("/results", self._stream, allow_head=False)
        app.router.add_get("/camera", self._recognize_camera, allow_head=False)
        # A browser that goes away cancels its handler, which frees the place that it had.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        self._started.set()
        await self._stopped.wait()
        await runner.cleanup()

    async def _send_file(self, request: web.Request) -> web.Response:
        return web.Response(text=self._files[request.path], content_type=_CONTENT_TYPES[request.path])

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send frame after frame until the browser goes away; one that is slow misses some."""
        if self.num_viewers >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MAX_VIEWERS} are watching already")
        self.num_viewers += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": _CONTENT_TYPES[request.path]})
            await response.prepare(request)
            while True:
                await self._fresh.wait()
                await asyncio.wait_for(response.write(self._newest[request.path]), TIMEOUT_S)
        finally:
            self.num_viewers -= 1

    async def _recognize_camera(self, request: web.Request) -> web.WebSocketResponse:
        """Answer each JPEG with its result; a frame that cannot be used ends the stream with an error."""
        browser = web.WebSocketResponse(heartbeat=TIMEOUT_S, max_msg_size=MAX_FRAME_BYTES, compress=False)
        await browser.prepare(request)
        if self.num_cameras >= MAX_CAMERAS:
            await browser.send_json({"error": f"{MAX_CAMERAS} browsers send their cameras already; try again later"})
            await browser.close()
            return browser
        self.num_cameras += 1
        try:
            answer = _Answers(self._make_recognizer())
            async for message in browser:
                if message.type == WSMsgType.BINARY:
                    await browser.send_json(await asyncio.to_thread(answer, message.data))
        except InputError as error:
            await browser.send_json({"error": str(error)})
        finally:
            self.num_cameras -= 1
        await browser.close()
        return browser


class _Answers:
    """A browser's JPEG -> its answer; the same one again where the frame comes before the network wants one."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer, self._number, self._last = recognizer, 0, {}

    def __call__(self, jpeg: bytes) -> dict[str, object]:
        began = time.perf_counter()
        image = decode_jpeg(jpeg)
        decode_ms = 1e3 * (time.perf_counter() - began)
        if self._recognizer.takes(self._number, began):
            self._last = {**self._recognizer(image, began).to_dict(), "capture_ms": round(decode_ms, 2)}
        self._number += 1
        return self._last


@web.middleware
async def _refuse_other_sites(request: web.Request, handler: Callable) -> web.StreamResponse:
    """Refuse what another site's page makes the browser send: from its origin, or to a domain name bound to us.

    A name that an attacker's server resolves to this machine would let the attacker's page read the camera (DNS
    rebinding); addresses, localhost and this machine's own name belong to this machine alone.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    if not is_own_host(host):
        raise web.HTTPForbidden(text="open this page by this machine's address or name")
    if origin is not None and origin.partition("://")[2] != host:
        raise web.HTTPForbidden(text="this request comes from another site's page")
    return await handler(request)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def is_own_host(host: str) -> bool:
    """Whether a Host header can only mean this machine: an address, localhost, its own name (with .local)."""
    own = socket.gethostname().lower()
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name not in ("localhost", own, f"{own}.local", own.split(".")[0]):
            ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return True


def encode_jpeg(picture: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) -> JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG -> RGB uint8 (H, W, 3).

    Raises:
        InputError: not a JPEG, damaged, or larger than MAX_FRAME_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height > MAX_FRAME_PIXELS:
                raise InputError(f"{image.width}x{image.height} pixels are more than the limit of {MAX_FRAME_PIXELS}")
            return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise InputError(f"not a JPEG picture, or a damaged one ({error})") from None
