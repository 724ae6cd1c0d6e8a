"""The sockets that the daemon listens on, its own or systemd's, and serving on them until the last request is done.

Knows no route and no handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from audiod.config import Control, Server
from audioproto.errors import AudiodError, BadRequest, ConfigInvalid

_BACKLOG = 4096
"""Connections that wait to be accepted, over a restart too; the kernel's own default bound."""

_LINGER_S = 0.25
"""After the last connection was accepted, for its request to arrive: without it 1 of 30 was lost at a stop."""


def listen_tcp(server: Server) -> socket.socket:
    """Raises ConfigInvalid where the address is taken or not ours."""
    try:
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        return socket.create_server((server.host, server.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigInvalid(
            f"cannot listen on {server.host}:{server.port}: {error.strerror}", hint="choose another with --port"
        ) from error


def require_keys(sockets: Sequence[socket.socket]) -> None:
    """Raise ConfigInvalid where others than this host's own programs reach one of the `sockets`."""
    for sock in sockets:
        if sock.family == socket.AF_UNIX:
            continue
        address = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        if not (mapped or address).is_loopback:
            raise ConfigInvalid(
                f"other hosts reach {address}, and there are no API keys: write some into server.api_keys_file "
                "or AUDIOD_API_KEYS, listen on 127.0.0.1, or set server.open = true to serve everyone",
                hint="man audiod.toml",
            )


def listen_unix(control: Control) -> socket.socket:
    """The control socket: group-writable, and never taken from a daemon that still answers on it."""
    path = Path(control.socket)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise ConfigInvalid(f"another audiod answers on {path}", hint=f"audioctl --socket {path} status")
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
    except OSError as error:
        raise ConfigInvalid(
            f"cannot make the socket {path}: {error.strerror}", hint="choose another with --socket"
        ) from error
    path.chmod(0o660)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(control.group).gr_gid)
    sock.listen(64)
    return sock


def url_of(sock: socket.socket) -> str:
    """Where clients on this host reach an HTTP socket."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


Refuse = Callable[[AudiodError], web.Response]
"""Makes the answer to what is no HTTP, or more than is taken of it."""


class _Connection(web.RequestHandler):
    """aiohttp's, which would answer malformed HTTP as text and log each as an error with a traceback."""

    __slots__ = ("_refuse",)

    def __init__(self, refuse: Refuse, server: web.Server, **settings: Any) -> None:
        super().__init__(server, **settings)
        self._refuse = refuse

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = self._refuse(_fault(exc))
        response.force_close()  # where the next request would begin is unknown
        return response


def _fault(exc: BaseException | None) -> AudiodError:
    """What is wrong with a request, in our own words: aiohttp's repeat its bytes, among which may be a key."""
    if isinstance(exc, LineTooLong):
        return BadRequest("the address of the request, or one of its headers, is too long")
    if isinstance(exc, HttpProcessingError):
        return BadRequest(f"this is not valid HTTP/1.1 ({type(exc).__name__})")
    return AudiodError("the request could not be answered")


class _Server(web.Server):
    def __init__(self, refuse: Refuse, like: web.Server) -> None:
        super().__init__(
            like.request_handler,
            request_factory=like.request_factory,
            handler_cancellation=like.handler_cancellation,
            **like._kwargs,
        )
        self._refuse = refuse

    def __call__(self) -> web.RequestHandler:
        return _Connection(self._refuse, self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    """aiohttp has no public way to answer malformed HTTP by one's own rules."""

    __slots__ = ("_refuse",)

    def __init__(self, app: web.Application, refuse: Refuse, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._refuse = refuse

    async def _make_server(self) -> web.Server:
        return _Server(self._refuse, await super()._make_server())


@asynccontextmanager
async def serving(
    app: web.Application, sockets: Sequence[socket.socket], grace_s: float, refuse: Refuse
) -> AsyncIterator[None]:
    """Serve `app` while inside; what is no HTTP is answered by `refuse`.

    Leaving accepts no more and finishes running requests, for at most `grace_s`.
    """
    runner = _Runner(
        app, refuse, handle_signals=False, access_log=None, handler_cancellation=True, shutdown_timeout=grace_s
    )
    await runner.setup()
    try:
        for sock in sockets:
            await web.SockSite(runner, sock, backlog=_BACKLOG).start()
        yield
    finally:
        loop = asyncio.get_running_loop()
        for sock in sockets:
            loop.remove_reader(sock)
        # asyncio drops a connection that it has accepted when its server is closed before the transport is made, which
        # takes one turn of the loop; the next one makes it known to aiohttp.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for site in list(runner.sites):
            await site.stop()
        if runner.server is not None and runner.server.connections:
            await asyncio.sleep(_LINGER_S)
        await runner.cleanup()
