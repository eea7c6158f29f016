"""What a browser sends, with a time limit for a whole request."""

from __future__ import annotations

import io
import socket
import time

REQUEST_TIMEOUT_S = 30.0


class Incoming(io.RawIOBase):
    """The bytes that come in on a connection.

    A request that dribbles in byte by byte would hold its connection for ever, each byte within the socket's own
    time-out: once REQUEST_TIMEOUT_S have passed since `restart`, reading raises TimeoutError.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.restart()

    def restart(self) -> None:
        """A new request begins."""
        self._began = time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        if time.monotonic() - self._began > REQUEST_TIMEOUT_S:
            raise TimeoutError("the request took too long")
        return self._connection.recv_into(buffer)
