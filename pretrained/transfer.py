"""One file over https, over as many connections as it takes; what has arrived is never asked for again."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from ops.common.errors import InputError
from ops.common.files import atomic_write_text
from pretrained.timed_http import TimedHTTPHandler, TimedHTTPSHandler

_TRIES = 4  # in a row without a new byte
_PAUSE_S = 1.0
_CHUNK_BYTES = 1 << 18
_MIN_BYTES_PER_S = 100  # slower than this for a whole time-out is a server that no longer answers
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class _BrokenOffError(Exception):
    """The connection ended early; another try may go on from there."""


def check_url(url: str) -> urllib.parse.SplitResult:
    """Allow https, http on this machine, and file:// on this machine; InputError for any other."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{url!r} is not a URL: {error}") from error
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{url!r} is not a URL: spaces and the like are written as %20")
    if parts.scheme == "https" and host:
        return parts
    if parts.scheme == "http" and host in _LOCAL_HOSTS:
        return parts
    if parts.scheme == "file" and host in (None, "localhost"):
        return parts
    raise InputError(f"{url}: only https://, file:///, and http:// on localhost are allowed")


class _CheckedRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect must not lead where a user may not go."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        fp.close()  # urllib would read the body to its end, which need not come
        if check_url(newurl).scheme == "file":
            raise InputError(f"{req.full_url}: the server redirects to a file on this machine")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Transfer:
    """Fills `file` (open for appending) from `url`, over as many connections as it takes."""

    def __init__(
        self, url: str, file: IO[bytes], notes: Path, expected_size: int | None, max_bytes: int, timeout_s: float
    ) -> None:
        self.url = url
        self.file = file
        self.expected_size = expected_size
        self.max_bytes = max_bytes
        self.timeout_s = timeout_s
        self.total: int | None = None
        self.notes = notes  # which version of which file the part belongs to
        local = check_url(url).hostname in _LOCAL_HOSTS
        proxies = [urllib.request.ProxyHandler({})] if local else []  # a proxy knows another localhost
        self.opener = urllib.request.build_opener(_CheckedRedirect, TimedHTTPHandler, TimedHTTPSHandler, *proxies)

    def run(self) -> None:
        if check_url(self.url).scheme == "file":
            self._copy_local()
            return
        tries = 0
        while True:
            before = self.file.tell()
            try:
                self._connect()
                return
            except _BrokenOffError as error:
                tries = 1 if self.file.tell() > before else tries + 1
                if tries >= _TRIES:
                    of = f" of {self.total}" if self.total else ""
                    raise InputError(
                        f"{self.url}: broken off after {self.file.tell()}{of} bytes ({error}); run again to go on"
                    ) from error
                time.sleep(_PAUSE_S)

    def _copy_local(self) -> None:
        source = Path(urllib.request.url2pathname(check_url(self.url).path))
        if not source.is_file():
            raise InputError(f"{self.url}: there is no file {source}")
        self._restart()
        self._begin(source.stat().st_size)
        with source.open("rb") as file:
            shutil.copyfileobj(file, self.file)

    def _connect(self) -> None:
        """One connection; returns when the whole file is here."""
        notes = self._read_notes()
        if self.file.tell() and notes is None:
            self._restart()  # a part of something else, or of nobody knows what
        have = self.file.tell()
        request = urllib.request.Request(self.url, headers={"User-Agent": "tsm-fetch"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if notes["validator"]:
                request.add_header("If-Range", notes["validator"])
        try:
            with self.opener.open(request, timeout=self.timeout_s) as response:
                self._receive(response, have, notes)
        except urllib.error.HTTPError as error:
            with contextlib.closing(error):  # not `with error`: a redirect's is closed already
                self._answer(error, have)
        except urllib.error.URLError as error:
            if isinstance(error.reason, (ConnectionResetError, TimeoutError)):
                raise _BrokenOffError(str(error.reason)) from error
            host = urllib.parse.urlsplit(self.url).netloc
            raise InputError(
                f"{self.url}: cannot reach {host} ({error.reason}); another place can be given with --mirror"
            ) from error
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from error

    def _answer(self, error: urllib.error.HTTPError, have: int) -> None:
        """An answer that brings no data: the end of a complete part, a reason to try again, or a refusal."""
        if error.code == 416 and have:  # nothing after what we have
            match = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            if match and int(match[1]) == have:
                return
            self._restart()
            raise _BrokenOffError("the file on the server has changed") from error
        answer = f"the server answers {error.code} {error.reason}".splitlines()[0]
        if error.code in (408, 429) or error.code >= 500:
            raise _BrokenOffError(answer) from error
        raise InputError(f"{self.url}: {answer}") from error

    def _receive(self, response: http.client.HTTPResponse, have: int, notes: dict[str, Any] | None) -> None:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            total = int(match[2]) if match else None
            if notes is None or not match or int(match[1]) != have or total != notes["total"]:
                self._restart()
                raise _BrokenOffError("the server sent another part than asked for")
        elif have:
            self._restart()  # no ranges here, or the file has changed: from the start
        self._begin(total)
        self._write_notes(response.headers, total)
        window_start, window_bytes = time.monotonic(), 0
        with tqdm(
            total=total,
            initial=self.file.tell(),
            unit="B",
            unit_scale=True,
            disable=None,
            desc=Path(self.url).name[-40:],
        ) as bar:
            while chunk := response.read1(_CHUNK_BYTES):
                self.file.write(chunk)
                bar.update(len(chunk))
                if self.file.tell() > self.max_bytes:
                    raise InputError(f"{self.url}: larger than {self.max_bytes} bytes; given up")
                window_bytes += len(chunk)
                seconds = time.monotonic() - window_start
                if seconds > self.timeout_s:
                    if window_bytes < _MIN_BYTES_PER_S * seconds:
                        raise _BrokenOffError(f"{window_bytes} bytes in {seconds:.0f} s")
                    window_start, window_bytes = time.monotonic(), 0
        if total is not None and self.file.tell() < total:
            raise _BrokenOffError("the connection ended early")

    def _begin(self, total: int | None) -> None:
        """Refuse before any byte is read what could not be kept."""
        self.total = total
        if total is None:
            return
        if total > self.max_bytes:
            raise InputError(f"{self.url}: {total} bytes, more than the {self.max_bytes} allowed")
        if self.expected_size is not None and total != self.expected_size:
            raise InputError(f"{self.url}: wrong size: the server has {total} bytes, {self.expected_size} expected")
        free = shutil.disk_usage(Path(self.file.name).parent).free
        if total - self.file.tell() > free:
            raise InputError(f"{self.file.name}: {total} bytes needed, {free} free on that disk")

    def _restart(self) -> None:
        self.file.truncate(0)
        self.file.seek(0)

    def _read_notes(self) -> dict[str, Any] | None:
        """What the part is of, None where that is not known or another URL."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            total, validator = notes["total"], notes["validator"]
            if notes["url"] != self.url or not isinstance(total, int | None):
                return None
            # It becomes a line of a header.
            return notes if validator is None or (validator.isascii() and validator.isprintable()) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _write_notes(self, headers: Any, total: int | None) -> None:
        tag = headers.get("ETag", "")
        validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        atomic_write_text(self.notes, json.dumps({"url": self.url, "validator": validator, "total": total}))
