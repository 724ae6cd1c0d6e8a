"""WebSockets: accepted, watched for clients that are gone, and ended between two pieces of work when the daemon stops.

Knows no protocol; what is said on a socket is its handler's matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec
from aiohttp import WSCloseCode, web

from audiod.api import bodies
from audiod.api.services import BEGUN, SERVICES

_HEARTBEAT_S = 30.0
"""A client that answers no ping for as long is gone."""


class Socket:
    """One accepted WebSocket. Made by `accepted`; iterate over `messages`."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self._answer_stall_s = bodies.seconds(request.app[SERVICES].config.server.answer_stall)
        self._at_work = 0
        self._ending = False
        self._closing: asyncio.Task[object] | None = None

    async def send(self, event: object) -> None:
        """A text frame with whatever msgspec encodes. Raises what `send_bytes` raises."""
        async with self._patience():
            await self.ws.send_frame(msgspec.json.encode(event), web.WSMsgType.TEXT)

    async def send_bytes(self, piece: bytes) -> None:
        """A binary frame. Raises ConnectionError where the client is gone, or takes nothing for too long."""
        async with self._patience():
            await self.ws.send_bytes(piece)

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._answer_stall_s):
                yield
        except TimeoutError as error:
            message = f"its client took nothing of the answer for {self._answer_stall_s:g} s"
            raise ConnectionAbortedError(message) from error

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While inside, the daemon's stop waits for what is being done."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            self._close_if_idle()

    def end(self) -> None:
        """The daemon stops: close as soon as nothing is at work here."""
        self._ending = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._ending and not self._at_work and self._closing is None:
            closing = self.ws.close(code=WSCloseCode.SERVICE_RESTART, message=b"audiod stops")
            self._closing = asyncio.get_running_loop().create_task(closing, name="closing a WebSocket")


@asynccontextmanager
async def accepted(request: web.Request, longest_bytes: int, protocols: Sequence[str] = ()) -> AsyncIterator[Socket]:
    """The request as a WebSocket, closed on leaving. Messages longer than `longest_bytes` close it (code 1009)."""
    ws = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, protocols=protocols, compress=False, max_msg_size=longest_bytes)
    request[BEGUN] = ws
    await ws.prepare(request)
    socket = Socket(request, ws)
    sockets = request.app[SERVICES].sockets
    sockets.add(socket)
    if request.app[SERVICES].stopping:  # it was accepted in the very moment of the stop
        socket.end()
    try:
        yield socket
    finally:
        sockets.discard(socket)
        await ws.close()
