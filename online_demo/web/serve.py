"""The demo on a web page, for boards without a screen: the annotated stream, the five best classes, the latencies.

The page can also send its own browser's camera, a JPEG a POST; every browser session has its own state. Nothing on disk
can be asked for: the page's three files are read once, at the start.
"""

from __future__ import annotations

import io
import ipaddress
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from online_demo.recognizer import Recognizer
from online_demo.web.incoming import Incoming
from online_demo.web.watching import MAX_SESSIONS, MAX_VIEWERS, Page, Session, Sessions, decode_jpeg
from ops.common.errors import InputError

BROWSER = "browser"
DEFAULT_HOST = "127.0.0.1"
MAX_BODY_BYTES = 2_000_000
MAX_CONNECTIONS = 64
_SOCKET_TIMEOUT_S = 20.0
_BOUNDARY = "frame"
_FOLDER = Path(__file__).resolve().parent / "page"
_PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def parse_address(text: str) -> tuple[str, int]:
    """`[HOST:]PORT` -> (host, port); without a host this machine alone. IPv6 as [::1]:8000."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or DEFAULT_HOST
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InputError(f"--serve {text}: give [HOST:]PORT, such as 8000 or 0.0.0.0:8000")
    return host, int(port)


class PageServer:
    """Serves the page from threads of its own. A context manager.

    Raises:
        InputError: the address cannot be listened on.
    """

    def __init__(self, address: tuple[str, int], make_recognizer: Callable[[], Recognizer]) -> None:
        self.page, self.sessions = Page(), Sessions(make_recognizer)
        host, port = address
        files = {url: ((_FOLDER / name).read_bytes(), kind) for url, (name, kind) in _PAGE_FILES.items()}
        try:
            self._server = _Server((host, port), self, files)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"--serve {host}:{port}: cannot listen there ({reason})") from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="page", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}/"

    def __enter__(self) -> PageServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], owner: PageServer, files: dict[str, tuple[bytes, str]]) -> None:
        self.owner, self.files = owner, files
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks the name service for this machine's full name, which can take long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SOCKET_TIMEOUT_S
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._incoming = Incoming(self.connection)
        self.rfile = io.BufferedReader(self._incoming)

    def handle_one_request(self) -> None:
        self._incoming.restart()
        super().handle_one_request()

    def do_GET(self) -> None:
        if not self._is_for_us():
            return
        path = urllib.parse.urlsplit(self.path).path
        if path in self.server.files:
            body, kind = self.server.files[path]
            self._send(200, body, kind)
        elif path == "/stream.mjpg":
            self._stream_pictures()
        elif path == "/results":
            self._stream_results()
        else:
            self._refuse(404, "no such page")

    def do_POST(self) -> None:
        if not self._is_for_us():
            return
        body = self._read_body()
        if body is None:
            return
        url = urllib.parse.urlsplit(self.path)
        name = urllib.parse.parse_qs(url.query).get("session", [""])[0]
        sessions = self.server.owner.sessions
        if url.path == "/session":
            created = sessions.create()
            if created is None:
                self._refuse(503, f"{MAX_SESSIONS} browsers are being served already; try again in a minute")
            else:
                self._send_json({"session": created})
        elif url.path in ("/frame", "/end"):
            session = sessions.find(name)
            if session is None:
                self._refuse(410, "this session is over; begin another one")
            elif url.path == "/end":
                sessions.remove(name)
                self._send_json({})
            else:
                self._recognize(session, body)
        else:
            self._refuse(404, "no such page")

    def _recognize(self, session: Session, body: bytes) -> None:
        began = time.perf_counter()
        try:
            image = decode_jpeg(body)
        except InputError as error:
            self._refuse(400, str(error))
            return
        decode_ms = 1e3 * (time.perf_counter() - began)
        with session.lock:
            result = session.recognizer(image)
        self._send_json({**result.to_dict(), "capture_ms": round(decode_ms, 2)})

    def _stream_pictures(self) -> None:
        page = self.server.owner.page
        with page.viewer() as admitted:
            if not admitted:
                self._refuse(503, f"{MAX_VIEWERS} are watching already")
                return
            self._begin_stream(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            number = 0
            while number >= 0:
                number, jpeg = page.picture_behind(number)
                if jpeg:
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _stream_results(self) -> None:
        page = self.server.owner.page
        with page.viewer() as admitted:
            if not admitted:
                self._refuse(503, f"{MAX_VIEWERS} are watching already")
                return
            self._begin_stream("text/event-stream")
            number = 0
            while number >= 0:
                number, shown = page.result_behind(number)
                # An empty comment is a sign of life, and the way to notice that nobody listens any more.
                line = ":" if shown is None else f"data: {json.dumps(shown.to_dict())}"
                self.wfile.write(f"{line}\n\n".encode())

    def _begin_stream(self, kind: str) -> None:
        self.close_connection = True
        self.send_response(200)
        self._send_headers({"Content-Type": kind, "Connection": "close"})

    def _is_for_us(self) -> bool:
        """Refuse what a strange page makes the browser ask: another page's origin, or a domain name bound to us.

        A name that an attacker's server resolves to this machine would let his page read the camera (DNS rebinding);
        addresses, localhost and this machine's own name are nobody else's.
        """
        host = self.headers.get("Host", "")
        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        origin = self.headers.get("Origin")
        if not is_own_name(name):
            self._refuse(403, "ask by this machine's address or name")
        elif origin is not None and urllib.parse.urlsplit(origin).netloc != host:
            self._refuse(403, "not from another page")
        else:
            return True
        return False

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._refuse(411, "say how long the body is")
        elif int(length) > MAX_BODY_BYTES:
            self._refuse(413, f"at most {MAX_BODY_BYTES} bytes a picture")
        else:
            body = self.rfile.read(int(length))
            return body if len(body) == int(length) else None
        return None

    def _refuse(self, status: int, reason: str) -> None:
        self.close_connection = True
        self._send(status, json.dumps({"error": reason}).encode(), "application/json", close=True)

    def _send_json(self, data: dict[str, object]) -> None:
        self._send(200, json.dumps(data).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str, *, close: bool = False) -> None:
        self.send_response(status)
        extra = {"Connection": "close"} if close else {}
        self._send_headers({"Content-Type": kind, "Content-Length": str(len(body)), **extra})
        self.wfile.write(body)

    def _send_headers(self, headers: dict[str, str]) -> None:
        for name, value in {**headers, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "tsm"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: stdout and stderr are for results and errors."""


def is_own_name(name: str) -> bool:
    """Whether a Host header's name can only be this machine: an address, localhost, its own name (with .local)."""
    own = socket.gethostname().lower()
    if name.lower() in ("localhost", own, f"{own}.local", own.split(".")[0]):
        return True
    try:
        ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return True
