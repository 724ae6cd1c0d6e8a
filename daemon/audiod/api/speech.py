"""POST /v1/audio/speech: text in, audio out as it is produced, as bytes or as server-sent events.

The body is checked here; choosing the model and speaking is speaking.py's. Nobody counts tokens here, as OpenAI's
models do: `usage` tells what the same speech would have been, by the rules below.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from audiod.api import bodies, recordings
from audiod.api.answers import EventStream, Streamed
from audiod.api.demand import with_second_try
from audiod.api.recordings import RECORDING_BYTES
from audiod.api.references import References, Wanted, gathered
from audiod.api.services import BEGUN, MODEL, SERVICES, STAGE
from audiod.api.speaking import Speech, SpeechFields, Spoken, choose, speak_into
from audiod.api.spool import Spool
from audiod.media.formats import SpeechFormat
from audiod.tasks import first_failure
from audioproto.errors import AudiodError, BadRequest

_BYTES_PER_TOKEN = 4
"""Of UTF-8: the usual estimate for English text, about one token for a Chinese character."""

_TOKENS_PER_MINUTE = 1250
"""Of audio: what OpenAI's prices for gpt-4o-mini-tts make of each other ($12 a million tokens, $0.015 a minute)."""


class StreamFormat(StrEnum):
    """`stream_format`: the audio itself, or events that hold pieces of it."""

    AUDIO = "audio"
    SSE = "sse"


class SpeechRequest(SpeechFields, kw_only=True):
    """Text to be spoken."""

    input: Annotated[
        str,
        Meta(
            description="The text; at most `server.input_characters` characters (4096), or what its model takes.",
            examples=["Hello there."],
        ),
    ]
    response_format: SpeechFormat | None = SpeechFormat.MP3
    stream_format: StreamFormat | None = StreamFormat.AUDIO


class AudioDelta(msgspec.Struct, tag_field="type", tag="speech.audio.delta"):
    """The next piece of the audio, in `response_format`; all pieces joined are the file."""

    audio: bytes


class SpeechUsage(msgspec.Struct):
    """Estimates: a token for four bytes of text, and 1250 for a minute of audio."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class AudioDone(msgspec.Struct, tag_field="type", tag="speech.audio.done"):
    """The last event, unless it failed."""

    usage: SpeechUsage


BODY_BYTES = bodies.JSON_BODY_BYTES + 2 * (RECORDING_BYTES * 4 // 3)
"""Largest body: a recording of the voice, another one of the emotion, and the rest."""

_decoder = msgspec.json.Decoder(SpeechRequest)


def parse(body: bytes | bytearray) -> SpeechRequest:
    """The checked body. Raises BadRequest naming the field."""
    asked = bodies.decode_json(body, _decoder)
    if not asked.input.strip():
        raise BadRequest("input is empty", param="input")
    return asked


def usage(asked: SpeechRequest, audio_s: float) -> SpeechUsage:
    """At least one token each way."""
    text_bytes = len(asked.input.encode()) + len((asked.instructions or "").encode())
    read = max(1, math.ceil(text_bytes / _BYTES_PER_TOKEN))
    spoken = max(1, math.ceil(audio_s / 60 * _TOKENS_PER_MINUTE))
    return SpeechUsage(read, spoken, read + spoken)


async def speak(request: web.Request) -> web.StreamResponse:
    """Answer with audio, streamed. A worker that fails before anything was sent is forgiven once."""
    services = request.app[SERVICES]
    async with AsyncExitStack() as stack:
        with services.audio_memory.hold() as held:
            request[STAGE] = "uploading"
            with recordings.naming(""):
                body = await bodies.read_json_body(request, services.config.server, BODY_BYTES, held)
            asked = parse(body)
            del body
            request[STAGE] = ""
            speech = choose(services, asked, asked.input, asked.input, asked.response_format or SpeechFormat.MP3)
            request[MODEL] = speech.model
            references = await stack.enter_async_context(gathered(request, speech.wanted))
            asked.forget_recordings()
            speech = replace(speech, wanted=Wanted())
        return await with_second_try(partial(_speak, request, asked, speech, references), lambda: BEGUN in request)


async def _speak(
    request: web.Request, asked: SpeechRequest, speech: Speech, references: References
) -> web.StreamResponse:
    """Let the model speak into a spool, and send from there as fast as the client takes it."""
    with request.app[SERVICES].audio_memory.hold() as held:
        spool = Spool(held)
        async with first_failure() as tasks:
            speaking = tasks.create_task(_fill(spool, request, speech, references), name=f"{speech.model}: speech")
            if asked.stream_format is StreamFormat.SSE:
                return await _send_events(spool, request, asked, speaking)
            return await _send_bytes(spool, request, speech.format)


async def _fill(spool: Spool, request: web.Request, speech: Speech, references: References) -> Spoken:
    try:
        spoken = await speak_into(spool, request, speech, references)
    except AudiodError as error:
        await spool.end(error)
        return Spoken(0.0, 0.0)
    await spool.end()
    return spoken


async def _send_bytes(spool: Spool, request: web.Request, form: SpeechFormat) -> Streamed:
    """The answer begins with the first piece, so that errors before it have their own status."""
    answer = Streamed(request, form.content_type)
    while piece := await spool.read():
        if isinstance(piece, bytes):
            await answer.put(piece)
    await answer.finish()
    return answer


async def _send_events(
    spool: Spool, request: web.Request, asked: SpeechRequest, speaking: asyncio.Task[Spoken]
) -> EventStream:
    answer = EventStream(request)
    while piece := await spool.read():
        if isinstance(piece, bytes):
            await answer.send(AudioDelta(piece))
        else:
            await answer.send(piece, is_progress=True)
    await answer.send(AudioDone(usage(asked, (await speaking).audio_s)))
    await answer.finish()
    return answer
