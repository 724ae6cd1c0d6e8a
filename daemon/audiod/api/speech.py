"""POST /v1/audio/speech: text in, audio out as it is produced.

The text is checked here and the voice chosen; what can be spoken is the engine's matter, how it is encoded media's. The
model is given back when it has spoken, however slowly the client listens.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Union

import msgspec
from aiohttp import web

from audiod.api import bodies
from audiod.api.answers import Streamed
from audiod.api.demand import Value, Wishes, at_work, read_wishes, with_second_try
from audiod.api.services import MODEL, SERVICES, STAGE
from audiod.api.spool import Spool
from audiod.media.formats import SpeechFormat
from audioproto.errors import AudiodError, BadRequest, UnspeakableText
from audioproto.worker import AudioChunk, AudioStart, Done, Synthesize

SPEED_RANGE = (0.25, 4.0)
"""OpenAI's, inclusive."""


class VoiceObject(msgspec.Struct):
    id: str


class SpeechRequest(msgspec.Struct):
    """The body. Unknown keys are ignored, because real clients send them; `voice` may be left out, as some do."""

    input: str
    model: str
    voice: Union[str, VoiceObject] = ""
    instructions: str | None = None
    response_format: str = "mp3"
    speed: float = 1.0
    priority: str | None = None
    keep_alive: Value = None
    park_keep_alive: Value = None
    timeout: Value = None


_decoder = msgspec.json.Decoder(SpeechRequest)


def parse(body: bytes, character_limit: int) -> SpeechRequest:
    """The checked body. Raises BadRequest naming the field."""
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), param=_field_of(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not asked.input.strip():
        raise BadRequest("input is empty", param="input")
    if len(asked.input) > character_limit:
        message = f"input has {len(asked.input)} characters; the limit is {character_limit}"
        raise BadRequest(message, param="input")
    if asked.response_format not in set(SpeechFormat):
        raise BadRequest(f"response_format must be one of {', '.join(SpeechFormat)}", param="response_format")
    if not (math.isfinite(asked.speed) and SPEED_RANGE[0] <= asked.speed <= SPEED_RANGE[1]):
        raise BadRequest(f"speed must be from {SPEED_RANGE[0]} to {SPEED_RANGE[1]}", param="speed")
    return asked


def _field_of(message: str) -> str:
    """The field that a msgspec message is about: "... - at `$.speed`" or "... missing required field `input`"."""
    quoted = message.rsplit("`", 2)
    return quoted[1].removeprefix("$.").split(".")[0] if len(quoted) == 3 else ""


@dataclass(frozen=True, slots=True)
class Speech:
    """A checked request: what to speak, by which model, how to send it, and what else is wished for."""

    model: str
    work: Synthesize
    format: SpeechFormat
    wishes: Wishes


async def speak(request: web.Request) -> web.StreamResponse:
    """Answer with audio, streamed. A worker that fails before anything was sent is forgiven once."""
    services = request.app[SERVICES]
    server = services.config.server
    request[STAGE] = "uploading"
    asked = parse(await bodies.read_json_body(request, server), server.input_characters)
    request[STAGE] = ""
    wishes = read_wishes(asked.priority, asked.keep_alive, asked.park_keep_alive, asked.timeout)
    voice = asked.voice.id if isinstance(asked.voice, VoiceObject) else asked.voice
    entry, voice = services.library.speaker(asked.model, voice, asked.input)
    request[MODEL] = entry.id
    work = Synthesize(0, asked.input, voice, asked.speed, asked.instructions or "")
    speech = Speech(entry.id, work, SpeechFormat(asked.response_format), wishes)
    return await with_second_try(request, partial(_speak, request, speech))


async def _speak(request: web.Request, speech: Speech) -> web.StreamResponse:
    """Let the model speak into a spool, and send from there as fast as the client takes it."""
    answer = Streamed(request, speech.format.content_type)
    with request.app[SERVICES].audio_memory.hold() as held:
        spool = Spool(held)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_fill(spool, request, speech), name=f"{speech.model}: speech")
                await _send(spool, answer)
        except ExceptionGroup as group:  # where both ends failed, the first to say so was the cause
            raise group.exceptions[0] from None
    return answer


async def _fill(spool: Spool, request: web.Request, speech: Speech) -> None:
    try:
        await _encode(spool, request, speech)
    except AudiodError as error:
        await spool.end(error)
    else:
        await spool.end()


async def _encode(spool: Spool, request: web.Request, speech: Speech) -> None:
    services = request.app[SERVICES]
    rate = spoken_bytes = 0
    demand = speech.wishes.to_speak(speech.work.text)
    wait_s = speech.wishes.wait_s(services.config.residency.queue_timeout)
    async with AsyncExitStack() as stack:
        encoder = None
        async with at_work(request, speech.model, speech.work, demand, wait_s) as job:
            async for message in job:
                match message:
                    case AudioStart(sample_rate=rate, tempo=tempo):
                        encoder = await stack.enter_async_context(services.media.encoder(speech.format, rate, tempo))
                    case AudioChunk(pcm=pcm):
                        assert encoder is not None
                        spoken_bytes += len(pcm)
                        await spool.put(await encoder.feed(pcm))
                    case Done(engine_s=engine_s) if rate:
                        services.metrics.observe_audio(speech.model, spoken_bytes / 2 / rate, engine_s)
        request[STAGE] = "sending"
        if encoder is None:
            raise UnspeakableText("the model found nothing to speak in this text", param="input")
        await spool.put(await encoder.finish())


async def _send(spool: Spool, answer: Streamed) -> None:
    """The answer begins with the first piece, so that errors before it have their own status."""
    while piece := await spool.read():
        await answer.put(piece)
    await answer.finish()
