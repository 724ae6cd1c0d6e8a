"""GET /v1/audio/speech/stream: speech over a WebSocket, utterance by utterance, from text that may come in pieces.

The client sends JSON text frames, each with a `type`:

    start        the fields of POST /v1/audio/speech. With `input` that is the whole text; without, pieces follow.
                 Audio is always PCM, so `response_format` is `pcm` or left out.
    input.text   {"text": "..."}: more text. Each sentence is spoken as soon as it is whole.
    input.done   no more text is coming.
    cancel       stop: the model's work ends, what has not been sent is dropped.

The server sends, for each utterance, in this order:

    audio.start  JSON: format "pcm", sample_format "s16le", sample_rate 24000, channels 1, model, voice. At once.
    (binary)     PCM as described, whole samples, as it is produced.
    audio.end    JSON: status "completed", "cancelled" or "failed", and timings in seconds.

When it has ended, the next may be started on the same connection. What is wrong is told as {"type": "error", "error":
{...}} with OpenAI's error object. A `start` that is refused begins no utterance; one that fails later ends as "failed".
Either way the connection stays, unless what should have been a `start` cannot be understood: then it is closed (1007).
One that does not say `start` within `server.upload_stall` is closed (1008). Text that stands still for as long is an
error. An utterance has at most `server.input_characters`, or what its model takes. A frame has at most 1 MiB: a voice
whose recording is larger is stored first. With `progress`, {"type": "speech.progress", "phase", "part", "parts"} comes
as each phase of the work is over, between the audio. Browsers send their key as a subprotocol beside `realtime`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Union

import msgspec
from aiohttp import WSCloseCode, web
from msgspec import Meta

from audiod.api import bodies, errors
from audiod.api.demand import with_second_try
from audiod.api.references import References, Wanted, gathered
from audiod.api.services import SERVICES, STAGE
from audiod.api.sockets import Socket, accepted
from audiod.api.speaking import SpeechFields, check_length, choose, speak_into
from audiod.api.spool import Spool
from audiod.media.formats import SpeechFormat
from audiod.tasks import first_failure
from audioproto.errors import AudiodError, BadRequest, UnspeakableText, UploadStalled
from audioproto.sentences import complete
from audioproto.types import PCM_RATE_OUT

logger = logging.getLogger(__name__)

PROTOCOLS = ("realtime",)
"""What a browser is answered that sends its key as a subprotocol: one of those it offers must be chosen."""

_PAUSE_S = 0.25
"""Text that stands still for so long after an end mark has come to the end of a sentence."""


# --- what the client says ---------------------------------------------------------------------------------------------


class Start(SpeechFields, kw_only=True, tag_field="type", tag="start"):
    """Begin an utterance."""

    input: Annotated[str | None, Meta(description="The whole text; where it is missing or empty, pieces follow.")] = (
        None
    )
    response_format: SpeechFormat | None = SpeechFormat.PCM


class InputText(msgspec.Struct, tag_field="type", tag="input.text"):
    """More of the utterance's text, as it comes; it need not end where a word does."""

    text: str


class InputDone(msgspec.Struct, tag_field="type", tag="input.done"):
    """The text is whole."""


class Cancel(msgspec.Struct, tag_field="type", tag="cancel"):
    """End the utterance now. Without effect where there is none."""


# --- what the server says ---------------------------------------------------------------------------------------------


class AudioStart(msgspec.Struct, tag_field="type", tag="audio.start"):
    """The header of an utterance."""

    model: str
    voice: str
    format: str = "pcm"
    sample_format: str = "s16le"
    sample_rate: int = PCM_RATE_OUT
    channels: int = 1


class Status(StrEnum):
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Timings(msgspec.Struct):
    """Seconds. `first_audio_s` is from the first whole sentence to its first audio frame, left out where none was sent;
    `engine_s` what the model worked; `audio_s` how long the audio sent lasts; `total_s` from start to end."""

    engine_s: float
    audio_s: float
    total_s: float
    first_audio_s: float | msgspec.UnsetType = msgspec.UNSET


class AudioEnd(msgspec.Struct, tag_field="type", tag="audio.end"):
    """The end of an utterance, however it came about."""

    status: Status
    characters: int
    """Of text received."""
    timings: Timings


class ErrorEvent(msgspec.Struct, tag_field="type", tag="error"):
    """OpenAI's error object."""

    error: dict[str, Any]


_decoder: msgspec.json.Decoder[Union[Start, InputText, InputDone, Cancel]] = msgspec.json.Decoder(
    Union[Start, InputText, InputDone, Cancel]
)


async def stream(request: web.Request) -> web.StreamResponse:
    """Speak utterances until the client leaves or the daemon stops."""
    async with accepted(request, bodies.JSON_BODY_BYTES, PROTOCOLS) as socket, first_failure() as tasks:
        conversation = _Conversation(request, socket, tasks)
        try:
            await conversation.listen()
        finally:
            conversation.stop()
    return socket.ws


class _Conversation:
    """What is received on one connection, and the utterance that it is about."""

    def __init__(self, request: web.Request, socket: Socket, tasks: asyncio.TaskGroup) -> None:
        self._request = request
        self._socket = socket
        self._tasks = tasks
        self._utterance: _Utterance | None = None
        self._running: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Until the connection is closed, by whomever."""
        stall_s = bodies.seconds(self._request.app[SERVICES].config.server.upload_stall)
        while True:
            try:
                message = await self._socket.receive(None if self._utterance else stall_s)
            except TimeoutError:
                await self._refuse(UploadStalled(f"no start came within {stall_s:g} s"))
                await self._socket.ws.close(code=WSCloseCode.POLICY_VIOLATION, message=b"no start")
                return
            if message is None:
                return
            try:
                said = _read(message)
            except BadRequest as error:
                await self._refuse(error)
                if self._going_on is None and error.param in ("", "type"):
                    await self._socket.ws.close(code=WSCloseCode.INVALID_TEXT, message=b"not understood")
                    return
                continue
            finally:
                del message  # it may hold a recording, and the next one may be long in coming
            try:
                await self._take(said)
            except AudiodError as error:
                await self._refuse(error)

    def stop(self) -> None:
        """Nobody listens any more."""
        if self._utterance is not None:
            self._utterance.abandon()
        if self._running is not None:
            self._running.cancel()

    @property
    def _going_on(self) -> _Utterance | None:
        return None if self._utterance is None or self._utterance.over else self._utterance

    async def _take(self, said: Start | InputText | InputDone | Cancel) -> None:
        going_on = self._going_on
        match said:
            case Start():
                if going_on is not None:
                    raise BadRequest("an utterance is going on: wait for its audio.end, or cancel it", param="type")
                self._utterance = _Utterance(self._request, self._socket, self._tasks, said)
                self._running = self._tasks.create_task(self._utterance.run(), name="utterance")
            case Cancel():
                if going_on is not None:
                    await going_on.cancel()
            case InputText() | InputDone():
                if going_on is not None:
                    going_on.add(said.text) if isinstance(said, InputText) else going_on.done()
                elif self._utterance is None or self._utterance.has_all_text:
                    raise BadRequest("there is no utterance that text could belong to: send start", param="type")
                # else it is text that was on its way to an utterance that has failed or was cancelled

    async def _refuse(self, error: AudiodError) -> None:
        self._request.app[SERVICES].metrics.observe_error(error.code)
        await self._socket.send(_event(error))


def _read(message: str | bytes) -> Start | InputText | InputDone | Cancel:
    """Raises BadRequest naming the field, or `type`, or nothing where it is no message of this protocol."""
    if isinstance(message, bytes):
        raise BadRequest("send JSON in text frames; only the server sends binary ones")
    return bodies.decode_json(message, _decoder)


class _Utterance:
    """One text on its way to becoming sound. Raises AudiodError where its start asks for what cannot be."""

    def __init__(self, request: web.Request, socket: Socket, tasks: asyncio.TaskGroup, start: Start) -> None:
        self._request = request
        self._services = request.app[SERVICES]
        self._socket = socket
        self._tasks = tasks
        self._start = start
        self._known = ""
        """All text that has come, spoken or not."""
        self._waiting = ""
        """What of it has not been spoken."""
        self._changed = asyncio.Event()
        self._too_long: AudiodError | None = None
        self._spool: Spool | None = None
        self._filling: asyncio.Task[None] | None = None
        self._wanted = Wanted()
        self._references: References | None = None
        """What was wanted, gathered."""
        self._cancelled = False
        self._engine_s = 0.0
        self._ready_at: float | None = None
        """When the first text was there that could be spoken."""
        self.has_all_text = False
        self.over = False
        if start.response_format not in (SpeechFormat.PCM, None):
            raise BadRequest("on a WebSocket audio is pcm", param="response_format")
        text = start.input or ""
        if text and not text.strip():
            raise BadRequest("input is empty", param="input")
        speech = choose(self._services, start, "", text, SpeechFormat.PCM)
        self._header = AudioStart(speech.model, speech.voice)
        self._longest = speech.longest
        if text:
            self.add(text)
            self.done()

    # --- what the client says of it -------------------------------------------------------------------------------

    def add(self, text: str) -> None:
        """More text. Raises BadRequest where there should be none."""
        if self.has_all_text:
            raise BadRequest("the text of this utterance has already ended", param="type")
        try:
            check_length(len(self._known) + len(text), self._longest)
        except BadRequest as error:
            self._too_long = error
            self.done()
            return
        self._known += text
        self._waiting += text
        self._changed.set()

    def done(self) -> None:
        self.has_all_text = True
        self._changed.set()

    async def cancel(self) -> None:
        """Stop the model, and drop what has not been sent."""
        if self._request.get(STAGE) == "sending":
            self._services.metrics.observe_cancelled(self._header.model, "sending")
            self._request[STAGE] = ""
        self._cancelled = True
        self.abandon()
        if self._spool is not None:
            await self._spool.discard()

    def abandon(self) -> None:
        """Stop the model, at its next chance."""
        if self._filling is not None:
            self._filling.cancel()

    # --- what becomes of it ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the header to the end frame, whatever comes between. Raises ConnectionError."""
        began = time.monotonic()
        with self._socket.at_work():
            with self._services.audio_memory.hold() as held:
                self._spool = spool = Spool(held)
                await self._socket.send(self._header)
                if self._cancelled:
                    await spool.discard()
                else:
                    self._filling = self._tasks.create_task(self._fill(spool), name=f"{self._header.model}: utterance")
                status, first_audio_s, sent_bytes = await self._send(spool)
            audio_s, total_s = sent_bytes / 2 / PCM_RATE_OUT, time.monotonic() - began
            timings = Timings(*(round(seconds, 4) for seconds in (self._engine_s, audio_s, total_s)))
            if first_audio_s is not None:
                timings.first_audio_s = round(first_audio_s, 4)
            self._request[STAGE] = ""
            self.over = True
            self._start.forget_recordings()
            self._wanted, self._references = Wanted(), None
            await self._socket.send(AudioEnd(status, len(self._known), timings))
        extra = {"model": self._header.model, "seconds": timings.total_s}
        logger.info("utterance %s: %.2f s of speech in %.3f s", status, audio_s, total_s, extra=extra)

    async def _send(self, spool: Spool) -> tuple[Status, float | None, int]:
        """How it ended, when the first audio went, and how much in all."""
        first_audio_s, sent_bytes = None, 0
        try:
            while piece := await spool.read():
                if not isinstance(piece, bytes):
                    await self._socket.send(piece)
                    continue
                await self._socket.send_bytes(piece)
                sent_bytes += len(piece)
                if first_audio_s is None and self._ready_at is not None:
                    first_audio_s = time.monotonic() - self._ready_at
                    self._services.metrics.observe_first_byte(self._header.model, first_audio_s)
        except AudiodError as error:
            self._services.metrics.observe_error(error.code)
            await self._socket.send(_event(error))
            return Status.FAILED, first_audio_s, sent_bytes
        return Status.CANCELLED if self._cancelled else Status.COMPLETED, first_audio_s, sent_bytes

    async def _fill(self, spool: Spool) -> None:
        nothing: AudiodError = BadRequest("input is empty", param="input")
        try:
            async with AsyncExitStack() as recordings:
                while piece := await self._next_piece():
                    try:
                        await self._speak(spool, piece, recordings)
                    except UnspeakableText as error:  # a picture between two sentences is no reason to fall silent
                        nothing = error
            if self._too_long is not None:
                raise self._too_long
            if not spool.put_bytes:
                raise nothing
        except AudiodError as error:
            await spool.end(error)
        else:
            await spool.end()

    async def _next_piece(self) -> str:
        """As much of the text as is certain to be whole sentences, empty at its end. Raises UploadStalled.

        It is taken when the one before has been spoken: of text that comes faster, more is spoken at a time.
        """
        while not self.has_all_text:
            ready = complete(self._waiting) or await self._wait()
            if _has_sound(self._waiting[:ready]):
                return self._take_piece(ready)
            if ready:  # marks alone belong to what follows
                await self._wait()
        if self._ready_at is None or _has_sound(self._waiting):
            return self._take_piece(len(self._waiting))
        return ""

    def _take_piece(self, ready: int) -> str:
        piece, self._waiting = self._waiting[:ready], self._waiting[ready:]
        self._ready_at = self._ready_at or time.monotonic()
        return piece

    async def _wait(self) -> int:
        """Wait for more text; how much is ready where only silence comes. Raises UploadStalled."""
        self._changed.clear()
        try:
            async with asyncio.timeout(_PAUSE_S):
                await self._changed.wait()
            return 0
        except TimeoutError:
            if (ready := complete(self._waiting, pausing=True)) and _has_sound(self._waiting[:ready]):
                return ready
        stall_s = bodies.seconds(self._services.config.server.upload_stall)
        try:
            async with asyncio.timeout(stall_s):
                await self._changed.wait()
        except TimeoutError as error:
            raise UploadStalled(f"no text came for {stall_s:g} s, and no input.done") from error
        return 0

    async def _speak(self, spool: Spool, piece: str, recordings: AsyncExitStack) -> None:
        """A worker that fails before any of the piece was heard is forgiven once.

        What the model is to imitate is kept in `recordings` for the pieces to come.
        """
        speech = choose(self._services, self._start, piece, self._known, SpeechFormat.PCM)
        if self._references is None or speech.wanted != self._wanted:
            await recordings.aclose()
            self._references = await recordings.enter_async_context(gathered(self._request, speech.wanted))
            self._wanted = speech.wanted
        before_bytes = spool.put_bytes
        attempt = partial(speak_into, spool, self._request, speech, self._references)
        spoken = await with_second_try(attempt, lambda: spool.put_bytes > before_bytes)
        self._engine_s += spoken.engine_s


def _has_sound(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _event(error: AudiodError) -> ErrorEvent:
    return ErrorEvent(msgspec.json.decode(errors.envelope(error))["error"])
