"""Downloading a large file: over https, checked, and in place at once or not at all."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import torch

from ops.common.download import TIMEOUT_S, download_timeout
from ops.common.errors import InputError
from pretrained.checksums import Received, received_file

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def check_url(url: str) -> str:
    """Return `url` if it is https, or http or file:// on this machine; InputError for any other."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is not a URL: {error}") from error
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{url!r} is not a URL: spaces and the like are written as %20")
    allowed = {"https": host, "http": host in _LOCAL_HOSTS, "file": host in (None, "localhost")}
    if not allowed.get(parts.scheme):
        raise InputError(f"{url}: only https://, file:///, and http:// on localhost are allowed")
    return url


def download(url: str, target: Path, *, expected: Received | None = None, timeout_s: float = TIMEOUT_S) -> None:
    """Fetch `url` to `target`; `expected` is what was recorded of it.

    Raises:
        InputError: the download fails or breaks off, the answer is no file or not the expected one, the disk is full.
            The target is then as it was.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with download_timeout(timeout_s):
            request = urllib.request.Request(check_url(url), method="HEAD", headers={"User-Agent": "torch.hub"})
            with urllib.request.urlopen(request) as answer:  # leads to where the file is, and knows its length
                source, length = check_url(answer.url), answer.headers["Content-Length"]
            torch.hub.download_url_to_file(source, str(part), progress=sys.stderr.isatty())
        received = received_file(part)
        problem = _problem(part, received, expected)
        if length is not None and received.size != int(length):  # torch.hub takes what came before a break for all
            problem = f"broken off after {received.size} of {length} bytes; run again"
        if problem:
            raise InputError(f"{url}: {problem} (nothing was kept)")
        os.replace(part, target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
        raise InputError(f"{url}: cannot be fetched ({reason}); --mirror gives another place") from error
    finally:
        part.unlink(missing_ok=True)


def _problem(part: Path, received: Received, expected: Received | None) -> str | None:
    """What is wrong with a file that has arrived."""
    with part.open("rb") as file:
        start = file.read(512).lstrip()[:1]
    if received.size == 0:
        return "the server sent an empty file"
    if start == b"<":
        return "the server sent a web page, not a checkpoint"
    if expected not in (None, received):
        return f"not the file that was recorded: {received} arrived, {expected} expected"
    return None
