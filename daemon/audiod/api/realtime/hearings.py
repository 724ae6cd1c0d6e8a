"""Audio of a session before a model: turns as a whole, and live ones again and again as they grow.

Which audio a live turn needs when is live_turn.py's, what clients are told is machine.py's.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from audiod.api.demand import Wishes, at_work, with_second_try
from audiod.api.realtime import opening
from audiod.api.realtime.buffer import Buffer
from audiod.api.realtime.live_turn import LiveTurn, Told, Window
from audiod.api.realtime.machine import Follow, Guessed, Recognised
from audiod.api.services import MODEL, SERVICES
from audiod.media.pool import Pcm
from audiod.residency.events import Demand
from audioproto.errors import AudiodError
from audioproto.types import PCM_RATE_IN, Priority
from audioproto.worker import Done, Segment, Transcribe

logger = logging.getLogger(__name__)

Tell = Callable[[Recognised | Guessed], Awaitable[None]]


class Hearing:
    """One turn, or part of it, before a model. Afterwards `waited_s` and `engine_s` say how long it took."""

    def __init__(self, request: web.Request, name: str) -> None:
        """Raises what Library.transcriber raises for the model's `name`."""
        self._request = request
        self._services = request.app[SERVICES]
        self.model = self._services.library.transcriber(name).id
        request[MODEL] = self.model
        self.waited_s = 0.0
        self.engine_s = 0.0

    async def hear(self, pcm: Pcm, work: Transcribe, take: Callable[[Segment], Awaitable[None]]) -> str:
        """Have `take` get what is heard, and return the language that it is in."""
        demand = Demand(pcm.duration_s, Priority.INTERACTIVE)
        wait_s = Wishes().wait_s(self._services.config.residency.queue_timeout)
        asked, language = time.monotonic(), ""
        async with at_work(self._request, self.model, work, demand, wait_s, pcm.fd) as job:
            self.waited_s = time.monotonic() - asked
            async for message in job:
                if isinstance(message, Segment):
                    await take(message)
                elif isinstance(message, Done):
                    language = message.language
                    self.engine_s = message.engine_s
                    self._services.metrics.observe_audio(self.model, pcm.duration_s, message.engine_s)
        return language or work.language


class LiveHearings:
    """The hearings of one live turn, one after another, in the `buffer` that its audio comes into."""

    def __init__(self, request: web.Request, turn: Follow, buffer: Buffer, tell: Tell) -> None:
        shortest_s = request.app[SERVICES].config.realtime.live_interval
        interval_s = float(sys.maxsize if shortest_s < 0 else shortest_s * turn.how.hearing_intervals)
        self.item_id = turn.item_id
        self._request = request
        self._metrics = request.app[SERVICES].metrics
        self._how = turn.how
        self._buffer = buffer
        self._tell = tell
        self._turn = LiveTurn(turn.start, max(1, int(interval_s * PCM_RATE_IN)))
        self._turn.came(buffer.end, time.monotonic())
        self._end = -1
        self._ended_at = 0.0
        self._changed = asyncio.Event()
        self._language = ""
        self._model = ""

    def note_audio(self) -> None:
        """There is more in the buffer."""
        self._turn.came(self._buffer.end, time.monotonic())
        self._changed.set()

    def end(self, end: int) -> Buffer:
        """The turn ends before the sample `end`. Returns its audio, which is out of the session's buffer."""
        self._end, self._ended_at = end, time.monotonic()
        self._buffer = self._buffer.split(end)
        self._changed.set()
        return self._buffer

    async def run(self) -> str:
        """Hear the turn until it has ended, and return its language.

        A hearing that fails is made up for by the next one, the last is tried twice. Raises what the last one raises.
        """
        while self._end < 0:
            self._changed.clear()
            if window := self._turn.window(self._buffer.end):
                await self._hear_on(window)
            else:
                await self._changed.wait()
        window = self._turn.rest(self._end)
        if window.start < window.end:
            # Nothing of a hearing is told before it is done, so that another one repeats nothing.
            await self._say(await with_second_try(partial(self._hear, window), lambda: False))
        await self._say(self._turn.end(self._end))
        self._metrics.observe_turn(self._model, time.monotonic() - self._ended_at)
        return self._language

    async def _hear_on(self, window: Window) -> None:
        end = self._buffer.end
        try:
            told = await self._hear(window)
        except AudiodError as error:
            logger.info("a live turn was not heard for once: %s", error.message)
        except ConnectionError:
            raise
        except Exception:
            logger.exception("unexpected error in a Realtime session")
        else:
            await self._say(told)
            if self._how.partials is True:
                await self._tell(Guessed(self.item_id, told.partial))
            self._buffer.forget(self._turn.start)
            return
        self._turn.missed(end)

    async def _hear(self, window: Window) -> Told:
        hearing = Hearing(self._request, self._how.model)
        segments: list[Segment] = []

        async def take(segment: Segment) -> None:
            segments.append(segment)

        with self._buffer.copy(window.start, window.end) as pcm:
            work = opening.work(self._how, pcm.samples, words=True)
            self._language = await hearing.hear(pcm, work, take) or self._language
        self._metrics.observe_live(hearing.model, "waiting", hearing.waited_s)
        self._metrics.observe_live(hearing.model, "engine", hearing.engine_s)
        self._model = hearing.model
        return self._turn.hear(segments, window)

    async def _say(self, told: Told) -> None:
        if told.text:
            await self._tell(Recognised(self.item_id, Segment(0, 0.0, 0.0, told.text)))
        now = time.monotonic()
        for came_at in told.came_at:
            self._metrics.observe_live(self._model, "committed", now - came_at)
