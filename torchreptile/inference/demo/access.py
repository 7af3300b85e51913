"""Who may ask the demo's server at all, and what every answer tells the browser; a layer around the application.

On a loopback address the danger is another page in the same browser: one whose name is made to point at this machine
(DNS rebinding) carries its own name in Host, one that merely sends requests here carries it in Origin. On any other
address strangers can connect: they need the token, which is asked for before anything of their request is read.
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
    """One line of JSON."""
    return JSONResponse({"error": reason}, status)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Guard:
    """Lets through what may be answered.

    Attributes:
        app: what answers.
        token: that must be shown; empty on a loopback address, where none is needed.
        cookie: name of the cookie that keeps it.
    """

    app: ASGIApp
    token: str
    cookie: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            return
        refused = self._refused(Request(scope))
        await (refused or self.app)(scope, receive, with_headers)

    def _refused(self, request: Request) -> Response | None:
        """What to answer instead, if anything."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if origin is not None and _place(origin) != host:
            return refusal(403, f"requests from {origin} are not answered; open the demo's own page")
        return self._by_token(request) if self.token else _by_host(host)

    def _by_token(self, request: Request) -> Response | None:
        """The token comes with the address that is printed, and then stays in a cookie that scripts cannot read."""
        if self._right(request.query_params.get("token", "")):
            answer = RedirectResponse("/", 303)  # out of the address bar and the history
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return answer
        if self._right(request.cookies.get(self.cookie, "")):
            return None
        return refusal(403, "the token is missing or wrong; open the whole address that reptile demo printed")

    def _right(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


def _by_host(host: str) -> Response | None:
    name = urlsplit(f"//{host}").hostname if _parses(host) else None
    if name is not None and is_loopback(name):
        return None
    return refusal(403, "only 127.0.0.1, localhost and [::1] are answered here; open the address that was printed")


def _place(origin: str) -> str | None:
    """Host and port of an origin; None of what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _parses(host: str) -> bool:
    try:
        urlsplit(f"//{host}").hostname  # noqa: B018 (it raises for some)
    except ValueError:
        return False
    return True
