"""Access control of the demo's server, as ASGI middleware: which requests are answered, and with which headers.

On a loopback address the danger is another page in the same browser: a page whose name was made to point at this
machine (DNS rebinding) sends that name in Host, and a page that only sends requests here sends its name in Origin. On
any other address strangers can connect; they need the token, which is checked before their request is read.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def refusal(status: int, reason: str) -> Response:
    """Return a response with ``{"error": reason}``."""
    return JSONResponse({"error": reason}, status)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to an address of this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Guard:
    """ASGI middleware that passes on allowed requests and adds the security headers to every response.

    Attributes:
        app: the application.
        token: required token; empty on a loopback address, which needs none.
        cookie: name of the cookie that stores the token.
    """

    app: ASGIApp
    token: str
    cookie: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            return
        refused = self._refused(Request(scope))
        await (refused or self.app)(scope, receive, with_headers)

    def _refused(self, request: Request) -> Response | None:
        """The refusal of a request, or None if the application may answer it."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if origin is not None and _host_of(origin) != host:
            return refusal(403, f"requests from {origin} are not answered; open the demo's own page")
        return self._check_token(request) if self.token else _check_host(host)

    def _check_token(self, request: Request) -> Response | None:
        """Move the token of the printed address into a cookie that scripts cannot read, or refuse the request."""
        if self._matches(request.query_params.get("token", "")):
            answer = RedirectResponse("/", 303)  # removes the token from the address bar and the history
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return answer
        if self._matches(request.cookies.get(self.cookie, "")):
            return None
        return refusal(403, "the token is missing or wrong; open the full address that reptile demo printed")

    def _matches(self, token: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


def _check_host(host: str) -> Response | None:
    """The refusal of a request whose Host is not a loopback address, or None."""
    name = urlsplit(f"//{host}").hostname if _parses(host) else None
    if name is not None and is_loopback(name):
        return None
    return refusal(403, "this server answers only 127.0.0.1, localhost and [::1]; open the address that was printed")


def _host_of(origin: str) -> str | None:
    """Host and port of an origin; None if it is malformed."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _parses(host: str) -> bool:
    """Whether ``urlsplit`` accepts a Host header."""
    try:
        urlsplit(f"//{host}").hostname  # noqa: B018 (malformed hosts raise ValueError)
    except ValueError:
        return False
    return True
