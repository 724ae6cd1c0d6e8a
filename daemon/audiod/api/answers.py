"""Answers: JSON at once, bytes as they are made, server-sent events.

A streamed answer begins with its first piece, so that an error before that has a status of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from audiod.api import bodies, errors
from audiod.api.services import BEGUN, MODEL, SERVICES, STARTED
from audioproto.errors import AudiodError


def json_answer(body: object, status: int = 200) -> web.Response:
    """`body` is whatever msgspec encodes; optional keys that do not apply are left out by whoever made it."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


class Streamed(web.StreamResponse):
    """An answer sent piece by piece, as fast as its client takes it."""

    def __init__(self, request: web.Request, content_type: str) -> None:
        super().__init__(headers={"Content-Type": content_type})
        self._answered = request
        self._is_timed = False

    async def put(self, piece: bytes, *, is_progress: bool = False) -> None:
        """Send `piece`, of the answer itself or, with `is_progress`, about the work on it: then it is not timed.

        Raises ConnectionAbortedError where the client takes nothing for `server.answer_stall`.
        """
        request = self._answered
        if not self.prepared:
            request[BEGUN] = self
            await self.prepare(request)
        if not (self._is_timed or is_progress):
            self._is_timed = True
            since = time.monotonic() - request[STARTED]
            request.app[SERVICES].metrics.observe_first_byte(request.get(MODEL, ""), since)
        async with self._patience():
            await self.write(piece)

    async def finish(self) -> None:
        """No more is coming. Raises what `put` raises."""
        async with self._patience():
            await self.write_eof()

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        longest_s = bodies.seconds(self._answered.app[SERVICES].config.server.answer_stall)
        try:
            async with asyncio.timeout(longest_s):
                yield
        except TimeoutError as error:
            raise ConnectionAbortedError(f"its client took nothing of the answer for {longest_s:g} s") from error


class EventStream(Streamed):
    """Server-sent events as OpenAI sends them: `data:` and JSON, an empty line after each, no names and no [DONE]."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request, "text/event-stream; charset=utf-8")
        self.headers["Cache-Control"] = "no-cache"
        self.headers["X-Accel-Buffering"] = "no"  # or nginx would keep the events until it has a page of them

    async def send(self, event: object, *, is_progress: bool = False) -> None:
        """`event` is whatever msgspec encodes. Raises what `put` raises."""
        await self.put(b"data: " + msgspec.json.encode(event) + b"\n\n", is_progress=is_progress)

    async def fail(self, error: AudiodError) -> None:
        """End with `error`, after the events that were already sent. Raises what `put` raises."""
        await self.put(b"data: " + errors.envelope(error) + b"\n\n", is_progress=True)
        await self.finish()
