"""A model at speaking: what every speech request may ask for, checked, and its audio, encoded, in a spool.

How the audio leaves, as an answer's body, as events or as frames, is its handler's matter.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Union

import msgspec
from aiohttp import web
from msgspec import Meta

from audiod.api.demand import Value, Wishes, at_work, read_wishes
from audiod.api.services import MODEL, SERVICES, STAGE, Services
from audiod.api.spool import Spool
from audiod.media.formats import SpeechFormat
from audioproto.errors import BadRequest, UnspeakableText
from audioproto.worker import AudioChunk, AudioStart, Done, Phase, Synthesize


class VoiceObject(msgspec.Struct):
    """A voice as OpenAI's API names one of the user's own."""

    id: Annotated[str, Meta(description="Of a voice that was created, or any other voice's name.")]


Instructions = Annotated[str, Meta(max_length=4096)]
Speed = Annotated[float, Meta(ge=0.25, le=4.0)]


class SpeechFields(msgspec.Struct, kw_only=True):
    """How to speak: the same for a request and for an utterance on a WebSocket.

    Unknown keys are ignored, because real clients send them; what may be left out may also be null.
    """

    model: Annotated[str, Meta(description="A model's id, or an alias of one.", examples=["tts-1"])]
    voice: Annotated[
        Union[str, VoiceObject, None],
        Meta(
            description="A voice of the model, or one of OpenAI's names; the model's own where there is none.",
            examples=["alloy"],
        ),
    ] = None
    instructions: Annotated[
        Instructions | None, Meta(description="How to say it; ignored by models that take none.")
    ] = None
    speed: Annotated[Speed | None, Meta(description="1 is as the model speaks; the pitch stays.")] = 1.0
    priority: Annotated[str | None, Meta(description="`interactive` or `batch`.")] = None
    keep_alive: Value = None
    park_keep_alive: Value = None
    timeout: Value = None

    @property
    def voice_name(self) -> str:
        return self.voice.id if isinstance(self.voice, VoiceObject) else self.voice or ""

    @property
    def wishes(self) -> Wishes:
        """Raises BadRequest."""
        return read_wishes(self.priority, self.keep_alive, self.park_keep_alive, self.timeout)


@dataclass(frozen=True, slots=True)
class Speech:
    """A checked request: what to speak, by which model, how to send it, and what else is wished for."""

    model: str
    work: Synthesize
    format: SpeechFormat
    wishes: Wishes


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of it: seconds of sound, as heard, and of the engine's time."""

    audio_s: float
    engine_s: float


def check_length(text_characters: int, services: Services) -> None:
    """Raises BadRequest for a text longer than `server.input_characters`."""
    limit = services.config.server.input_characters
    if text_characters > limit:
        raise BadRequest(f"input has {text_characters} characters; the limit is {limit}", param="input")


def choose(services: Services, fields: SpeechFields, text: str, known: str, form: SpeechFormat) -> Speech:
    """`text` as a job for the model and the voice that suit all that is `known` of the text it belongs to.

    Raises what Library.speaker raises, and BadRequest.
    """
    entry, voice = services.library.speaker(fields.model, fields.voice_name, known)
    speed = 1.0 if fields.speed is None else fields.speed
    return Speech(entry.id, Synthesize(0, text, voice, speed, fields.instructions or ""), form, fields.wishes)


async def speak_into(spool: Spool, request: web.Request, speech: Speech) -> Spoken:
    """Have `speech` spoken, and put the encoded audio into `spool`, which is not ended.

    The model is given back when it has spoken, however slowly the spool is read. Raises AudiodError.
    """
    services = request.app[SERVICES]
    request[MODEL], request[STAGE] = speech.model, ""
    rate = spoken_bytes = 0
    engine_s, tempo = 0.0, 1.0
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
                    case Phase():
                        services.metrics.observe_phase(speech.model, message)
                    case Done(engine_s=engine_s) if rate:
                        services.metrics.observe_audio(speech.model, spoken_bytes / 2 / rate, engine_s)
        request[STAGE] = "sending"
        if encoder is None:
            raise UnspeakableText("the model found nothing to speak in this text", param="input")
        await spool.put(await encoder.finish())
    return Spoken(spoken_bytes / 2 / rate / tempo, engine_s)
