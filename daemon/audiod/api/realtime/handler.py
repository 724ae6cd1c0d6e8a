"""GET /v1/realtime: binds a session's machine to its socket, its audio to an ear, and its turns to models.

What follows from what is machine.py's. One coroutine reads the socket and hears, in the client's order; each turn is
transcribed in a task of its own, so that several may be at work, and be done in any order. That of a live turn begins
with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial

from aiohttp import WSCloseCode, web

from audiod.api import access, bodies
from audiod.api.demand import with_second_try
from audiod.api.realtime import events, opening
from audiod.api.realtime.buffer import Buffer
from audiod.api.realtime.events import Append, Commit, ErrorEvent, InvalidEvent, error_detail
from audiod.api.realtime.hearings import Hearing, LiveHearings
from audiod.api.realtime.machine import (
    Abandon,
    AudioHeard,
    Follow,
    Forget,
    Happening,
    Listening,
    Opened,
    Recognise,
    Recognised,
    RecognitionEnded,
    Refused,
    Send,
    TranscriptionMachine,
)
from audiod.api.services import SERVICES
from audiod.api.sockets import Socket, accepted
from audiod.media.audio_memory import Held
from audiod.media.messages import HEAR_BYTES, Heard
from audiod.media.pool import Ear, Pcm
from audiod.tasks import first_failure
from audioproto.errors import AudiodError, BadRequest, QueueFull, all_errors
from audioproto.types import PCM_RATE_IN
from audioproto.worker import Segment

logger = logging.getLogger(__name__)

_MESSAGE_BYTES = events.APPEND_BYTES * 4 // 3 + 64 * 1024
"""Base64, and what is around it. A longer message closes the socket (code 1009)."""

_PROTOCOL = "realtime"
"""What browsers offer beside their key, and want back."""


async def realtime(request: web.Request) -> web.WebSocketResponse:
    """Serve a session until its client leaves. What is wrong with the URL is said on the socket: a browser sees no more
    of a refused handshake than that it failed.
    """
    services = request.app[SERVICES]
    limit = services.config.realtime.sessions
    if services.realtime_sessions >= limit:
        raise QueueFull(f"all {limit} Realtime sessions are in use", hint="realtime.sessions", retry_after_s=5)
    services.realtime_sessions += 1
    try:
        async with accepted(request, _MESSAGE_BYTES, (_PROTOCOL,)) as socket:
            like = services.temporary_keys.session_of(access.credential_of(request))
            try:
                session = opening.open_session(services, opening.read_query(request.query), like)
            except AudiodError as error:
                services.metrics.observe_error(error.code)
                await socket.send(ErrorEvent(event_id=opening.new_id("event"), error=error_detail(error)))
                await socket.ws.close(code=WSCloseCode.POLICY_VIOLATION, message=error.message.encode()[:100])
            else:
                machine = TranscriptionMachine(
                    session, opening.new_id, opening.default_model(services), opening.checker(services)
                )
                with services.audio_memory.hold() as held:
                    await _Session(request, socket, machine, held).run()
    finally:
        services.realtime_sessions -= 1
    return socket.ws


@dataclass(frozen=True, slots=True)
class _Live:
    """A live turn that has not ended. The task closes the resources."""

    hearings: LiveHearings
    resources: ExitStack
    task: asyncio.Task[None]


class _Session:
    """A session at work. What it `held` is given back by whoever made it."""

    def __init__(self, request: web.Request, socket: Socket, machine: TranscriptionMachine, held: Held) -> None:
        self._request = request
        self._services = request.app[SERVICES]
        self._socket = socket
        self._machine = machine
        self._held = held
        self._buffer = Buffer(held)
        self._ears = AsyncExitStack()
        self._ear: Ear | None = None
        self._hears = (machine.session.format, False)
        self._tasks: asyncio.TaskGroup
        self._turns: set[asyncio.Task[None]] = set()
        self._live: _Live | None = None

    async def run(self) -> None:
        """Return when the client has left, or the session's time is over and its turns are done."""
        limit_s = bodies.seconds(self._services.config.realtime.session_limit)
        try:
            async with first_failure() as self._tasks:
                try:
                    async with asyncio.timeout(limit_s):
                        await self._do(Opened())
                        await self._read()
                except TimeoutError:
                    self._abandon()
                    message = f"the session has lasted {limit_s:g} s, as long as one may"
                    await self._do(Refused(InvalidEvent(message, "session_expired")))
                else:
                    for turn in self._turns:
                        turn.cancel()  # there is nobody left to tell
        finally:
            await self._stop_listening()
        await self._socket.ws.close(code=WSCloseCode.GOING_AWAY, message=b"the session has expired")

    async def _read(self) -> None:
        while (frame := await self._socket.receive()) is not None:
            with self._socket.at_work():
                await self._take(frame)

    async def _take(self, frame: str | bytes) -> None:
        event_id = None
        try:
            event = events.read(frame)
            event_id = event.event_id
            if isinstance(event, Append):
                await self._hear(event.audio)
            else:
                if isinstance(event, Commit):
                    await self._hear_rest()
                await self._do(event)
        except (AudiodError, InvalidEvent) as error:
            await self._do(Refused(error, event_id))

    async def _do(self, happening: Happening) -> None:
        """Tell the machine, and do what it says. Raises ConnectionError where the client is gone."""
        for instruction in self._machine.handle(happening):
            match instruction:
                case Send(event):
                    if isinstance(event, ErrorEvent):
                        code = event.error.code or ""
                        self._services.metrics.observe_error(code if code in all_errors() else BadRequest.code)
                    await self._socket.send(event)
                case Forget(before):
                    self._buffer.forget(before)
                case Follow():
                    self._follow(instruction)
                case Abandon():
                    self._abandon()
                case Recognise():
                    await self._end_turn(instruction)

    # --- audio --------------------------------------------------------------------------------------------------------

    async def _hear(self, audio: bytes) -> None:
        heard_bytes = self._machine.session.format.heard_bytes(len(audio))
        self._check_room(heard_bytes)
        self._held.charge(heard_bytes)
        try:
            ear = await self._listen()
            for start in range(0, len(audio), HEAR_BYTES):
                await self._take_in(await ear.hear(audio[start : start + HEAR_BYTES]))
        except AudiodError:
            await self._stop_listening()
            raise
        finally:
            self._held.give_back(heard_bytes)

    def _check_room(self, heard_bytes: int) -> None:
        longest_s = float(self._services.config.media.max_audio)
        if (self._machine.kept_samples + heard_bytes // 2) / PCM_RATE_IN > longest_s:
            message = f"a turn may last {longest_s:g} s: commit or clear what has been appended"
            raise BadRequest(message, param="audio")
        if not self._held.fits(heard_bytes):
            message = "there is no memory for more audio: commit or clear what has been appended"
            raise QueueFull(message, hint="server.audio_memory", retry_after_s=5)

    async def _listen(self) -> Ear:
        """The ear for audio as the session is set now."""
        session = self._machine.session
        hears = (session.format, session.turns is not None)
        if self._ear is None or hears != self._hears:
            await self._hear_rest()
            await self._stop_listening()
            self._ear = await self._ears.enter_async_context(self._services.media.ear(*hears))
            self._hears = hears
            await self._do(Listening())
        return self._ear

    async def _hear_rest(self) -> None:
        if self._ear is not None:
            try:
                heard = await self._ear.flush()
            except AudiodError:
                await self._stop_listening()
                raise
            await self._take_in(heard)

    async def _take_in(self, heard: Heard) -> None:
        self._buffer.append(heard.pcm)
        await self._do(AudioHeard(len(heard.pcm) // 2, heard.speech))
        if self._live is not None:
            self._live.hearings.note_audio()

    async def _stop_listening(self) -> None:
        self._ear = None
        ears, self._ears = self._ears, AsyncExitStack()
        await ears.aclose()

    # --- turns --------------------------------------------------------------------------------------------------------

    async def _end_turn(self, turn: Recognise) -> None:
        live, self._live = self._live, None
        resources = ExitStack() if live is None else live.resources
        resources.enter_context(self._socket.at_work())
        if live is not None:
            resources.callback(live.hearings.end(turn.end).clear)
            return
        try:
            pcm = resources.enter_context(await self._buffer.take(turn.start, turn.end))
        except AudiodError as error:
            resources.close()
            await self._do(RecognitionEnded(turn.item_id, error=error))
            return
        self._begin(turn.item_id, partial(self._hear_whole, turn, pcm), resources)

    def _follow(self, turn: Follow) -> None:
        hearings, resources = LiveHearings(self._request, turn, self._buffer, self._do), ExitStack()
        self._live = _Live(hearings, resources, self._begin(turn.item_id, hearings.run, resources))

    def _abandon(self) -> None:
        if self._live is not None:
            self._live.task.cancel()
            self._live = None

    def _begin(self, item_id: str, hear: Callable[[], Awaitable[str]], resources: ExitStack) -> asyncio.Task[None]:
        task = self._tasks.create_task(self._transcribe(item_id, hear), name=f"{item_id}: transcript")
        self._turns.add(task)
        task.add_done_callback(self._turns.discard)
        task.add_done_callback(lambda _: resources.close())  # not in the task: it may be cancelled before it begins
        return task

    async def _transcribe(self, item_id: str, hear: Callable[[], Awaitable[str]]) -> None:
        """Have an item heard, which tells the machine of it and returns the language; then tell it that it is done."""
        language = ""
        failure: AudiodError | None = None
        try:
            language = await hear()
        except AudiodError as error:
            failure = error
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            logger.exception("unexpected error in a Realtime session")
            failure = AudiodError("internal error; the log has the details")
        if failure is not None:
            self._services.metrics.observe_error(failure.code)
            logger.warning("a turn was not transcribed: %s", failure.message)
        await self._do(RecognitionEnded(item_id, language, failure))

    async def _hear_whole(self, turn: Recognise, pcm: Pcm) -> str:
        committed = time.monotonic()
        hearing = Hearing(self._request, turn.how.model)
        work = opening.work(turn.how, pcm.samples, logprobs=turn.logprobs)

        async def take(segment: Segment) -> None:
            await self._do(Recognised(turn.item_id, segment))

        attempt = partial(hearing.hear, pcm, work, take)
        language = await with_second_try(attempt, lambda: self._machine.has_said(turn.item_id))
        self._services.metrics.observe_turn(hearing.model, time.monotonic() - committed)
        return language
