"""A model at speaking: what every speech request may ask for, checked, and its audio, encoded, in a spool.

How the audio leaves, as an answer's body, as events or as frames, is its handler's matter.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Union

import msgspec
from aiohttp import web
from msgspec import Meta

from audiod.api import emotions
from audiod.api.demand import Value, Wishes, at_work, read_wishes
from audiod.api.emotions import EmotionFields
from audiod.api.references import References, Sample, Wanted
from audiod.api.services import MODEL, SERVICES, STAGE, Services
from audiod.api.spool import Event, Spool
from audiod.media.formats import SpeechFormat
from audiod.models.catalogue import ModelEntry
from audioproto.errors import BadRequest, UnspeakableText
from audioproto.languages import NAMES, code_of
from audioproto.worker import AudioChunk, AudioStart, Done, Phase, Sampling, Synthesize

Transcript = Annotated[str, Meta(max_length=4096)]

_NAME_CHARACTERS = 200
VoiceName = Annotated[str, Meta(max_length=_NAME_CHARACTERS)]

_URL = re.compile(r"data:|[a-z][a-z0-9+.-]{0,19}://", re.IGNORECASE)
"""What stands for a recording where a name could: one that comes along, or one that is not fetched."""


class VoiceObject(msgspec.Struct):
    """A voice as OpenAI's API names one of the user's own; or, beyond that API, the recording of one."""

    id: Annotated[VoiceName | None, Meta(description="Of a voice that was created, or any other voice's name.")] = None
    audio: Annotated[str | None, Meta(description="A recording of the voice: base64, or a data URL of it.")] = None
    transcript: Annotated[Transcript | None, Meta(description="What is said in the recording.")] = None

    def __post_init__(self) -> None:
        if (self.id is None) == (self.audio is None):
            raise ValueError("a voice has an `id` or an `audio`")


_ID_OR_AUDIO = {
    "oneOf": [
        {"type": ["string", "null"]},
        *({"type": "object", "required": [name], "properties": {name: {"type": "string"}}} for name in ("id", "audio")),
    ]
}
"""What VoiceObject checks by itself, for the description of the API."""

Instructions = Annotated[str, Meta(max_length=4096)]
Speed = Annotated[float, Meta(ge=0.25, le=4.0)]


class SpeechFields(msgspec.Struct, kw_only=True):
    """How to speak: the same for a request and for an utterance on a WebSocket.

    Unknown keys are ignored, because real clients send them; what may be left out may also be null.
    """

    model: Annotated[
        str, Meta(description="A model's id, or an alias of one.", examples=["tts-1"], max_length=_NAME_CHARACTERS)
    ]
    voice: Annotated[
        Union[str, VoiceObject, None],
        Meta(
            description=(
                "A voice of the model, or one of OpenAI's names; the model's own where there is none. For models that "
                "imitate: a stored voice by its id or name, or a recording, as a data URL or an object."
            ),
            examples=["alloy"],
            extra_json_schema=_ID_OR_AUDIO,
        ),
    ] = None
    ref_audio: Annotated[
        str | None, Meta(description="A recording of the voice, in the place of `voice`: base64, or a data URL of it.")
    ] = None
    ref_text: Annotated[Transcript | None, Meta(description="What is said in `ref_audio`.")] = None
    emotion: Annotated[EmotionFields | None, Meta(description="How it is to sound, for models that take emotions.")] = (
        None
    )
    instructions: Annotated[
        Instructions | None,
        Meta(
            description=(
                "How to say it; ignored by models that take none. For those that take emotions: a description, names "
                "with strengths (`happy 0.6, calm 0.2`), or an emotion object in JSON."
            )
        ),
    ] = None
    language: Annotated[
        Annotated[str, Meta(max_length=100)] | None,
        Meta(
            description=(
                "What the text is in: a code, tag or English name; told by voice or text where left out. It matters "
                "to models that speak several languages with one voice."
            ),
            examples=["es"],
        ),
    ] = None
    speed: Annotated[Speed | None, Meta(description="1 is as the model speaks; the pitch stays.")] = 1.0
    seed: Annotated[
        Annotated[int, Meta(ge=-1, le=2**53)] | None,
        Meta(description="Equal seeds give equal audio; -1 is by chance. This and the next five: where the model can."),
    ] = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[Annotated[int, Meta(ge=0, le=2**31)] | None, Meta(description="0 is all.")] = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    interval_silence: Annotated[
        Annotated[float, Meta(ge=0, le=5000)] | None,
        Meta(description="Milliseconds of silence between two parts of a long text."),
    ] = None
    progress: Annotated[
        bool | None, Meta(description="Send events about the phases of the work too, where events are sent.")
    ] = False
    priority: Annotated[str | None, Meta(description="`interactive` or `batch`.")] = None
    keep_alive: Value = None
    park_keep_alive: Value = None
    timeout: Value = None

    @property
    def voice_name(self) -> str:
        """Empty where it is nobody's name, but a recording. Raises BadRequest where it is neither."""
        if self.sample is not None:
            return ""
        name = (self.voice.id if isinstance(self.voice, VoiceObject) else self.voice) or ""
        if len(name) > _NAME_CHARACTERS:
            raise BadRequest("voice is too long to be a name, and no data URL of a recording either", param="voice")
        return name

    @property
    def sample(self) -> Sample | None:
        """The recording of the voice that came along. Raises BadRequest where there are two."""
        sample = None
        if isinstance(self.voice, VoiceObject) and self.voice.audio is not None:
            sample = Sample(self.voice.audio, "voice", (self.voice.transcript or "").strip())
        elif isinstance(self.voice, str) and _URL.match(self.voice):
            sample = Sample(self.voice, "voice")
        if self.ref_audio is None:
            return sample
        if sample is not None:
            raise BadRequest("voice and ref_audio both are recordings; there can be one", param="ref_audio")
        return Sample(self.ref_audio, "ref_audio", (self.ref_text or "").strip())

    def forget_recordings(self) -> None:
        """Free what they take, once they have been decoded."""
        self.voice = self.ref_audio = self.emotion = None

    @property
    def sampling(self) -> Sampling:
        seed = None if self.seed is None or self.seed < 0 else self.seed
        return Sampling(self.temperature, self.top_p, self.top_k, self.repetition_penalty, seed)

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
    wanted: Wanted
    """Recordings that `work` is still without."""
    voice: str
    """The voice's name, for people; empty where it has none."""
    longest: int
    """Characters that a text for this model may have."""
    progress: bool


class SpeechProgress(Event, tag_field="type", tag="speech.progress"):
    """A phase of the work is over, as its engine calls it, for part `part` of `parts`, or where these are 0 for all.

    Sent only to those who asked for `progress`.
    """

    phase: str
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of it: seconds of sound, as heard, and of the engine's time."""

    audio_s: float
    engine_s: float


def check_length(text_characters: int, longest: int) -> None:
    """Raises BadRequest for a text longer than that."""
    if text_characters > longest:
        raise BadRequest(f"input has {text_characters} characters; the limit is {longest}", param="input")


def choose(services: Services, fields: SpeechFields, text: str, known: str, form: SpeechFormat) -> Speech:
    """`text` as a job for the model and the voice that suit all that is `known` of the text it belongs to.

    Raises what Library.speaker raises, and BadRequest.
    """
    if len(known) > services.longest_input:  # told before anything looks through all of it
        message = f"input has {len(known)} characters; no model takes more than {services.longest_input}"
        raise BadRequest(message, param="input")
    explicit = None if fields.emotion is None else emotions.read(fields.emotion)
    has_emotion = explicit is not None
    language = "" if (fields.language or "").lower() == "auto" else code_of(fields.language or "")
    sample = fields.sample
    if sample is None:
        entry, voice = services.library.speaker(
            fields.model, fields.voice_name, known, emotion=has_emotion, language=language
        )
    else:
        entry, voice = services.library.imitator(fields.model, known, emotion=has_emotion, language=language), ""
    if language and not entry.knows(language):
        spoken = ", ".join(NAMES.get(code, code).title() for code in dict.fromkeys(map(code_of, entry.languages)))
        raise BadRequest(f"{entry.id} speaks {spoken}, and not {fields.language!r}", param="language")
    if has_emotion and not entry.emotions:
        able, hint = services.library.speakers_that(lambda other: other.emotions)
        raise BadRequest(f"{entry.id} takes no emotion; of the installed models do: {able}", param="emotion", hint=hint)
    longest = entry.input_characters or services.config.server.input_characters
    check_length(len(known), longest)
    asked, param, instructions = fields.emotion, "emotion", fields.instructions or ""
    if asked is None and entry.emotions:
        asked, param, instructions = emotions.read_instructions(instructions), "instructions", ""
    emotion = None if asked is None else emotions.read(asked, param)
    if asked is not None and emotion is not None and not (emotion.vector or asked.audio):
        _require_words(services, entry, param)
    is_own = not voice or any(own.id == voice for own in entry.voices)
    stored = None if is_own else services.voices.find(voice)
    wanted = Wanted(
        voice=stored or sample,
        emotion=Sample(asked.audio, param) if asked is not None and asked.audio else None,
    )
    work = Synthesize(
        0,
        text,
        stored.id if stored else voice,
        speed=1.0 if fields.speed is None else fields.speed,
        instructions=instructions,
        emotion=emotion,
        sampling=fields.sampling,
        pause_s=None if fields.interval_silence is None else fields.interval_silence / 1000,
        language=language,
    )
    name = work.voice or fields.voice_name
    return Speech(entry.id, work, form, fields.wishes, wanted, name, longest, bool(fields.progress))


def _require_words(services: Services, entry: ModelEntry, param: str) -> None:
    """Raises BadRequest where the model takes no emotion in words."""
    if not entry.emotion_words:
        able, hint = services.library.speakers_that(lambda other: other.emotions and other.emotion_words)
        message = f"{entry.id} takes an emotion as a vector or audio, not in words; of the installed models do: {able}"
        raise BadRequest(message, param=param, hint=hint)


async def speak_into(spool: Spool, request: web.Request, speech: Speech, references: References) -> Spoken:
    """Have `speech` spoken like its `references`, and put the encoded audio into `spool`, which is not ended.

    Progress, where it is asked for, is told in between. The model is given back when it has spoken, however slowly the
    spool is read. Raises AudiodError.
    """
    services = request.app[SERVICES]
    request[MODEL], request[STAGE] = speech.model, ""
    rate = spoken_bytes = 0
    engine_s, tempo = 0.0, 1.0
    demand = speech.wishes.to_speak(speech.work.text)
    wait_s = speech.wishes.wait_s(services.config.residency.queue_timeout)
    work, descriptor = references.added_to(speech.work), references.descriptor
    async with AsyncExitStack() as stack:
        encoder = None
        async with at_work(request, speech.model, work, demand, wait_s, descriptor) as job:
            async for message in job:
                match message:
                    case AudioStart(sample_rate=rate, tempo=tempo):
                        encoder = await stack.enter_async_context(services.media.encoder(speech.format, rate, tempo))
                    case AudioChunk(pcm=pcm):
                        assert encoder is not None
                        spoken_bytes += len(pcm)
                        await spool.put(await encoder.feed(pcm))
                    case Phase(name=phase, part=part, parts=parts):
                        services.metrics.observe_phase(speech.model, message)
                        if speech.progress:
                            await spool.tell(SpeechProgress(phase, part, parts))
                    case Done(engine_s=engine_s) if rate:
                        services.metrics.observe_audio(speech.model, spoken_bytes / 2 / rate, engine_s)
        request[STAGE] = "sending"
        if encoder is None:
            raise UnspeakableText("the model found nothing to speak in this text", param="input")
        await spool.put(await encoder.finish())
    return Spoken(spoken_bytes / 2 / rate / tempo, engine_s)
