"""`ge ui`: binds an address, says where, and serves until Ctrl-C."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from guided_evolution.errors import UsageError
from guided_evolution.ui.app import make_app
from guided_evolution.ui.guard import Access

PORT = 8686
TRIES = 20


def serve(folder: Path, host: str, port: int | None, tell: Callable[[str], None]) -> None:
    """Serves the runs below a folder until it is interrupted.

    Args:
        host: The address to bind.
        port: The port; None takes the first free one from 8686 on.
        tell: Is told the address to open, once it can be opened.

    Raises:
        UsageError: When the address or the port can't be had.
    """
    with contextlib.closing(_bound(host, port)) as listener:
        access = Access.to(host, listener.getsockname()[1])
        config = uvicorn.Config(
            make_app(folder, access),
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        tell(address_of(access))
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run([listener])


def address_of(access: Access) -> str:
    """The address to open in a browser, with the token where one is needed."""
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(access.host, access.host)
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{access.port}/{f'?token={access.token}' if access.token else ''}"


def _bound(host: str, port: int | None) -> socket.socket:
    candidates = [port] if port is not None else [*range(PORT, PORT + TRIES), 0]
    for candidate in candidates:
        try:
            return _listener(host, candidate)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and candidate != candidates[-1]:
                continue
            reason = "it is in use; choose another --port" if error.errno == errno.EADDRINUSE else error.strerror
            raise UsageError(f"can't serve on {host} port {candidate}: {reason}") from None
    raise AssertionError("the last candidate either binds or raises")


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
