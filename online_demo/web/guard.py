"""Who may ask, and what every answer carries: the page shows a camera's pictures, which other sites must not see."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from ops.common.errors import InputError

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "tsm",
    "X-Content-Type-Options": "nosniff",
}
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One browser's connection. What is no HTTP gets the same headers as other answers, and no traceback in the log."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:
            response = super().handle_error(request, status, exc, message)
        else:
            response = web.Response(status=status, text=f"{status}: this is no request that the page makes")
            response.force_close()
        response.headers.update(HEADERS)
        return response


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For the application's `on_response_prepare`."""
    response.headers.update(HEADERS)


def refuse_other_sites(allowed_hosts: Collection[str]) -> Callable:
    """A middleware that refuses what another site's page makes the browser send: its origin, or a domain bound to us.

    A name that an attacker's server resolves to this machine would let the attacker's page read the camera (DNS
    rebinding). Addresses, localhost, this machine's own name and the user's `--allow-host` names are trusted.
    """
    allowed = {name.lower().partition(":")[0].rstrip(".") for name in allowed_hosts}

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        if not is_own_host(host, allowed):
            raise web.HTTPForbidden(
                text="This name is not known to the demo. Open the page by the machine's address, or start the demo "
                "with --allow-host and this name."
            )
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise web.HTTPForbidden(text="This request comes from another site's page.")
        return await handler(request)

    return middleware


def is_own_host(host: str, allowed: Collection[str] = ()) -> bool:
    """Whether a Host header can only mean this machine: an address, localhost, its own name, `allowed`."""
    own = socket.gethostname().lower()
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        if name not in {"localhost", own, f"{own}.local", own.split(".")[0], *allowed}:
            ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return True


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What `--cert` and `--key` ask for: https, or None for http.

    Raises:
        InputError: a key without a certificate, or files that cannot be used.
    """
    if cert is None:
        if key is not None:
            raise InputError("--key needs --cert, the certificate that it belongs to")
        return None
    for option, path in (("--cert", cert), ("--key", key)):
        if path is not None and not path.is_file():
            raise InputError(f"{option} {path}: no such file")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

    def refuse_password() -> str:
        raise InputError(f"--key {key or cert}: is encrypted; the demo needs one without a password")

    try:
        context.load_cert_chain(cert, key, password=refuse_password)
    except (OSError, ssl.SSLError) as error:
        hint = "a PEM certificate and the private key that belongs to it"
        raise InputError(f"--cert {cert}{f' --key {key}' if key else ''}: {error}; give {hint}") from None
    return context
