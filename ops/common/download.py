"""Downloads through torch.hub, which opens its connections without a time-out."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

TIMEOUT_S = 30.0


@contextlib.contextmanager
def download_timeout(seconds: float = TIMEOUT_S) -> Iterator[None]:
    """Give up on a host that sends nothing for so long: torch.hub would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
