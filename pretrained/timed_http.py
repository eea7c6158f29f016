"""HTTP connections on which no step takes longer than the time-out, however many bytes it comes in.

A socket's time-out is for a single `recv`: a server that sends a byte of its headers now and then would never run into
it.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.request
from typing import Any


class _Response(http.client.HTTPResponse):
    """A thread shuts the socket down when the headers, or one `read1`, have taken longer than the socket's time-out."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._socket, self._limit_s = sock, sock.gettimeout()
        self._began: float | None = None  # of the step under way
        self._late, self._over = False, threading.Event()

    def begin(self) -> None:
        if self._limit_s:
            self._began = time.monotonic()
            threading.Thread(target=self._watch, daemon=True).start()
        super().begin()
        self._end_step()

    def read1(self, n: int = -1) -> bytes:
        self._began = time.monotonic()
        data = super().read1(n)
        self._end_step()
        return data

    def close(self) -> None:
        self._over.set()
        super().close()

    def _end_step(self) -> None:
        self._began = None
        if self._late:
            raise TimeoutError(f"the server took longer than {self._limit_s:g} s for a few bytes")

    def _watch(self) -> None:
        while not self._over.wait(self._limit_s / 4):
            began = self._began
            if began is not None and time.monotonic() - began > self._limit_s:
                self._late = True
                with contextlib.suppress(OSError):  # it has just ended by itself
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # under TLS, too: its thread is reading
                return


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = _Response


class TimedHTTPHandler(urllib.request.HTTPHandler):
    """For `urllib.request.build_opener`, in place of its own."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class TimedHTTPSHandler(urllib.request.HTTPSHandler):
    """The same for https; certificates and host names are checked as by default."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, req, context=self._context)
