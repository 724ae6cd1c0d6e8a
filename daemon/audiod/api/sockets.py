"""WebSockets: accepted, kept open, watched for clients that are gone, and ended between two pieces of work.

Knows no protocol; what is said on a socket is its handler's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import msgspec
from aiohttp import WSCloseCode, web

from audiod.api import bodies
from audiod.api.services import BEGUN, SERVICES
from audiod.tasks import first_failure
from audioproto.errors import BadRequest

PING_S = 30.0
"""A frame so often keeps proxies from closing what they take for idle (nginx after 60 s), and lets the kernel find out
within its retries (15 min) that the client's host is gone. No pong is waited for, as aiohttp's own heartbeat does: it
would be late behind audio that a player takes no faster than it plays."""


class Socket:
    """One accepted WebSocket, made by `accepted`. One task receives; any may send."""

    def __init__(self, request: web.Request, ws: web.WebSocketResponse, tasks: asyncio.TaskGroup) -> None:
        self.ws = ws
        self._tasks = tasks
        self._request = request
        self._answer_stall_s = bodies.seconds(request.app[SERVICES].config.server.answer_stall)
        self._at_work = 0
        self._ending = False
        self._closing: asyncio.Task[object] | None = None

    async def receive(self, timeout_s: float | None = None) -> str | bytes | None:
        """The next message: text, bytes, or None where no more will come. Raises TimeoutError."""
        message = await self.ws.receive(timeout_s)
        if message.type is web.WSMsgType.TEXT or message.type is web.WSMsgType.BINARY:
            data: str | bytes = message.data
            return data
        return None

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
            if self._request.transport is not None:
                self._request.transport.abort()  # no goodbye would get through either
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
            self._closing = self._tasks.create_task(self._close(), name="closing a WebSocket")

    async def _close(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self.ws.close(code=WSCloseCode.SERVICE_RESTART, message=b"audiod stops")

    async def keep_open(self) -> None:
        """Ping for as long as it is open."""
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(PING_S)
                await self.ws.ping()


@asynccontextmanager
async def accepted(request: web.Request, longest_bytes: int, protocols: Sequence[str] = ()) -> AsyncIterator[Socket]:
    """The request as a WebSocket, closed on leaving. Messages longer than `longest_bytes` close it (code 1009).

    Raises BadRequest for a request that is none.
    """
    ws = web.WebSocketResponse(protocols=protocols, compress=False, max_msg_size=longest_bytes)
    if not ws.can_prepare(request):
        raise BadRequest("this path is a WebSocket: connect to it as one")
    await ws.prepare(request)
    request[BEGUN] = ws
    sockets = request.app[SERVICES].sockets
    async with first_failure() as tasks:
        one = Socket(request, ws, tasks)
        sockets.add(one)
        if request.app[SERVICES].stopping:  # it was accepted in the very moment of the stop
            one.end()
        pinging = tasks.create_task(one.keep_open(), name="pinging a WebSocket")
        try:
            yield one
        except Exception:
            await ws.close(code=WSCloseCode.INTERNAL_ERROR)
            raise
        finally:
            sockets.discard(one)
            pinging.cancel()
            await ws.close()
