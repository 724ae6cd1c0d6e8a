"""POST /v1/audio/speech: text in, audio out as it is produced.

The text is checked here and the voice chosen; what can be spoken is the engine's matter, how it is encoded media's.
"""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack
from typing import Union

import msgspec
from aiohttp import web

from audiod.api.services import BEGUN, MODEL, SERVICES, STARTED
from audiod.media.formats import SpeechFormat
from audiod.residency.events import Demand
from audioproto.errors import BadRequest, UnspeakableText, WorkerDied
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


async def speak(request: web.Request) -> web.StreamResponse:
    """Answer with audio, streamed. A worker that dies before anything was sent is forgiven once."""
    services = request.app[SERVICES]
    asked = parse(await request.read(), services.config.server.input_characters)
    voice = asked.voice.id if isinstance(asked.voice, VoiceObject) else asked.voice
    entry, voice = services.library.speaker(asked.model, voice, asked.input)
    request[MODEL] = entry.id
    work = Synthesize(0, asked.input, voice, asked.speed, asked.instructions or "")
    try:
        return await _speak(request, entry.id, work, SpeechFormat(asked.response_format))
    except WorkerDied:
        if BEGUN in request:
            raise
        return await _speak(request, entry.id, work, SpeechFormat(asked.response_format))


async def _speak(request: web.Request, model: str, work: Synthesize, audio_format: SpeechFormat) -> web.StreamResponse:
    services = request.app[SERVICES]
    response = web.StreamResponse(headers={"Content-Type": audio_format.content_type})
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(
            services.manager.lease(model, services.config.residency.queue_timeout, Demand())
        )
        job = await stack.enter_async_context(worker.run(work))
        encoder = None
        rate = spoken_bytes = 0
        async for message in job:
            match message:
                case AudioStart(sample_rate=rate, tempo=tempo):
                    encoder = await stack.enter_async_context(services.media.encoder(audio_format, rate, tempo))
                case AudioChunk(pcm=pcm):
                    assert encoder is not None
                    spoken_bytes += len(pcm)
                    await _write(request, response, await encoder.feed(pcm))
                case Done(engine_s=engine_s) if rate:
                    services.metrics.observe_audio(model, spoken_bytes / 2 / rate, engine_s)
        if encoder is None:
            raise UnspeakableText("the model found nothing to speak in this text", param="input")
        await _write(request, response, await encoder.finish())
    await response.write_eof()
    return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Send `data`; the answer begins with the first of it, so that errors before have their own status."""
    if not data:
        return
    if not response.prepared:
        request[BEGUN] = response
        await response.prepare(request)
        metrics = request.app[SERVICES].metrics
        metrics.observe_first_byte(request[MODEL], time.monotonic() - request[STARTED])
    await response.write(data)
