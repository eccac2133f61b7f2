"""Who may ask the dashboard, and what a browser may do with its answers.

Candidates and models write text that these pages show, so the pages run no script but the packaged ones, load
nothing from elsewhere, and can't be framed. A page of another site can't read them either: its Host or Origin is
refused (DNS rebinding), and off this machine a token is needed.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Plotly's style sheet is ours (static/plotly.css). What is left are two style attributes that it sets as text, on the
# colour bar and on bold labels; a hash lets through exactly these. Its gradients are data: images.
ATTRIBUTES = ("", "font-weight:bold")
HASHES = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in ATTRIBUTES)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    f"style-src-attr 'unsafe-hashes' {HASHES}; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Access:
    """The address that is served, and the token that opens it.

    Attributes:
        host: The address the server is bound to.
        port: Its port.
        token: What a stranger has to know; empty on this machine's own address.
        names: Host names that a request may carry besides IP addresses.
    """

    host: str
    port: int
    token: str = ""
    names: frozenset[str] = field(default=LOOPBACK_NAMES)

    @classmethod
    def to(cls, host: str, port: int) -> Access:
        """Access to a server that is bound to an address; anything but this machine's own gets a fresh token."""
        if is_loopback(host):
            return cls(host, port, names=LOOPBACK_NAMES | {host.lower()})
        names = {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        return cls(host, port, secrets.token_urlsafe(24), LOOPBACK_NAMES | names)

    @property
    def cookie(self) -> str:
        """The cookie's name; it carries the port because browsers share cookies between ports."""
        return f"ge_token_{self.port}"

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server. The port may be a tunnel's, and doesn't matter."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        # bound to all addresses, any of them may be typed; an address can't be rebound, only a name can
        return bool(self.token) and self.host in ("0.0.0.0", "::") and _is_address(name)

    def opens(self, given: str) -> bool:
        """Whether a token is the right one, in constant time."""
        return hmac.compare_digest(given.encode(), self.token.encode())


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """Middleware that turns strangers away and adds the security headers to every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; see the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        access = self._access
        host = request.headers.get("host", "")
        if not access.knows(host):
            return PlainTextResponse("This dashboard doesn't go by that name.", 421)
        origin = request.headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or (origin is None and request.method not in ("GET", "HEAD")):
            return PlainTextResponse("A page of another site can't ask this dashboard.", 403)
        if not access.token or access.opens(request.cookies.get(access.cookie, "")):
            return None
        if access.opens(request.query_params.get("token", "")):
            return self._welcome(request)
        return HTMLResponse(
            _page("Locked", "Open the address that <code>ge ui</code> printed; it carries a token."), 403
        )

    def _welcome(self, request: Request) -> Response:
        """Sets the cookie, then leads to the same page without the token in its address.

        Not by a redirect: a strict cookie is withheld on one that another site's link began.
        """
        query = "&".join(part for part in request.url.query.split("&") if not part.startswith("token="))
        path = request.scope.get("raw_path", b"/").decode("latin-1").lstrip("/")  # two slashes would name another host
        target = escape(f"/{path}" + (f"?{query}" if query else ""))
        body = f'<a href="{target}">Go on to the dashboard</a>'
        response = HTMLResponse(_page("Welcome", body, f'<meta http-equiv="refresh" content="0; url={target}">'))
        response.set_cookie(self._access.cookie, self._access.token, httponly=True, samesite="strict", path="/")
        return response


def _page(title: str, body: str, head: str = "") -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}<title>{title}</title></head>'
        f"<body><h1>{title}</h1><p>{body}</p></body></html>"
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
