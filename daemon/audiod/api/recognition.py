"""An upload heard: decoded, put before a model, and answered as a whole or as events, in its language or another.

What transcriptions and translations have in common. Each checks its own form into an `Asked`; shapes are
transcripts.py's, recognition the engine's, and translate/ asks a language model where the engine cannot translate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
from aiohttp import web

from audiod.api.answers import EventStream
from audiod.api.demand import Wishes, at_work, with_second_try
from audiod.api.forms import Form, read_form
from audiod.api.services import BEGUN, MODEL, SERVICES, STAGE, Services
from audiod.api.transcripts import FORMATS, Events, Transcript, render
from audiod.media.pool import Pcm
from audiod.models.catalogue import ModelEntry
from audiod.residency.events import Demand
from audiod.tasks import first_failure
from audiod.translate import cues
from audioproto.errors import AudiodError, BadAudio, BadRequest
from audioproto.languages import code_of
from audioproto.worker import Done, Segment, Transcribe

_STREAMED = ("json", "text")
"""Formats whose answer may be events; for the others `stream` is ignored, as OpenAI ignores it for whisper-1."""

_BOILERPLATE = {
    "convert the audio to text",  # Dify
    "the following conversation is a smart home user talking to home assistant.",  # Home Assistant and its kin
}
"""Prompts that clients send with every recording, in lower case. They say nothing of it, and Whisper takes a prompt for
what was said before: on a quiet recording it goes on in these words."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked form. `work` has no samples yet; `translate_to` is the tag of another language to answer in, or ""."""

    model: str
    work: Transcribe
    response_format: str
    wishes: Wishes
    granularities: Sequence[str] = ("segment",)
    stream: bool = False
    translate_to: str = ""

    @property
    def as_events(self) -> bool:
        return self.stream and self.response_format in _STREAMED


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What it takes to try once, or again."""

    request: web.Request
    asked: Asked
    model: str
    work: Transcribe
    pcm: Pcm
    demand: Demand
    wait_s: float


def context(prompt: str) -> str:
    """The prompt as the engine is told it."""
    return "" if prompt.strip().lower() in _BOILERPLATE else prompt


async def answer(request: web.Request, check: Callable[[Form], Asked]) -> web.StreamResponse:
    """Answer a form as `check` reads it. A worker that dies or has no memory is forgiven once, before the answer."""
    services = request.app[SERVICES]
    with services.audio_memory.hold() as held:
        request[STAGE] = "uploading"
        form = await read_form(request, held)
        with form.upload:
            form.require_file()
            asked = check(form)
            entry = services.library.transcriber(asked.model)
            work = _work(asked, entry, services)
            request[MODEL] = entry.id
            request[STAGE] = "decoding"
            pcm = await _decode(form, services)
        with pcm:
            request[STAGE] = ""
            work = msgspec.structs.replace(work, samples=pcm.samples)
            demand = asked.wishes.to_transcribe(pcm.duration_s, services.config.server.batch_after)
            wait_s = asked.wishes.wait_s(services.config.residency.queue_timeout)
            attempt = _Attempt(request, asked, entry.id, work, pcm, demand, wait_s)
            by_chat = bool(asked.translate_to) and not work.translate_to
            if asked.as_events and not by_chat:
                return await with_second_try(partial(_stream, attempt), lambda: BEGUN in request)
            transcript = await with_second_try(partial(_whole, attempt), lambda: False)
    if by_chat:
        request[STAGE] = "translating"
        transcript = await _translated(transcript, asked.translate_to, services)
        request[STAGE] = ""
    if asked.as_events:
        return await _as_events(request, transcript)
    body = render(asked.response_format, transcript, asked.granularities, asked.work.logprobs)
    return web.Response(body=body, content_type=FORMATS[asked.response_format], charset="utf-8")


def require_abilities(
    entry: ModelEntry, language: str, languages: Sequence[str], logprobs: bool, params: tuple[str, str, str]
) -> None:
    """Raises BadRequest for what the model cannot do, naming that one of `params`, which are for the three."""
    for param, named in ((params[0], [language]), (params[1], languages)):
        for one in filter(None, named):
            if entry.languages and code_of(one) not in map(code_of, entry.languages):
                hint = "audioctl models lists the languages of each model; without one it is recognised"
                raise BadRequest(f"{entry.id} does not know the language {one!r}", param=param, hint=hint)
    if logprobs and not entry.logprobs:
        raise BadRequest(f"{entry.id} gives no log probabilities", param=params[2])


def _work(asked: Asked, entry: ModelEntry, services: Services) -> Transcribe:
    """What the model is told; it translates where it can. Raises BadRequest for what it cannot do, naming the field."""
    work = asked.work
    require_abilities(entry, work.language, work.languages, work.logprobs, ("language", "languages[]", "include[]"))
    if not asked.translate_to:
        return asked.work
    target = cues.read_target(asked.translate_to)
    if target in entry.translates:
        return msgspec.structs.replace(asked.work, translate_to=target)
    if not services.translator:
        own = ", ".join(entry.translates) or "no other language"
        hint = "have the operator set [translate] in audiod.toml"
        message = f"{entry.id} translates into {own}, and no chat endpoint is configured for {asked.translate_to}"
        raise BadRequest(message, param="translate_to", hint=hint)
    return asked.work


async def _decode(form: Form, services: Services) -> Pcm:
    try:
        return await services.media.decode(form.upload)
    except BadAudio as error:
        if form.is_named:
            raise
        message = "file must be a file part, with a filename; what came as a text field is no audio"
        raise BadRequest(message, param="file") from error


async def _hear(attempt: _Attempt, take: Callable[[Segment], None]) -> str:
    """Have the model listen; `take` gets each segment as it is finished. Returns the language that was spoken."""
    language = ""
    async with at_work(
        attempt.request, attempt.model, attempt.work, attempt.demand, attempt.wait_s, attempt.pcm.fd
    ) as job:
        async for message in job:
            if isinstance(message, Segment):
                take(message)
            elif isinstance(message, Done):
                language = message.language
                metrics = attempt.request.app[SERVICES].metrics
                metrics.observe_audio(attempt.model, attempt.pcm.duration_s, message.engine_s)
    return language or code_of(attempt.work.language)


async def _whole(attempt: _Attempt) -> Transcript:
    segments: list[Segment] = []
    language = await _hear(attempt, segments.append)
    if target := attempt.work.translate_to:
        return Transcript(segments, target, attempt.pcm.duration_s, "translate")
    return Transcript(segments, language, attempt.pcm.duration_s)


async def _stream(attempt: _Attempt) -> EventStream:
    """Send segments as they come. The model does not wait for the client: what it has said is only text."""
    answer = EventStream(attempt.request)
    heard: asyncio.Queue[Segment | AudiodError | str] = asyncio.Queue()

    async def listen() -> None:
        try:
            language = await _hear(attempt, heard.put_nowait)
        except AudiodError as error:
            heard.put_nowait(error)
        else:
            attempt.request[STAGE] = "sending"
            attempt.pcm.close()
            heard.put_nowait(attempt.work.translate_to or language)

    async with first_failure() as tasks:
        tasks.create_task(listen(), name=f"{attempt.model}: transcript")
        await _send(answer, heard, attempt)
    return answer


async def _send(answer: EventStream, heard: asyncio.Queue[Segment | AudiodError | str], attempt: _Attempt) -> None:
    events = Events(attempt.work.logprobs)
    while True:
        match await heard.get():
            case Segment() as segment:
                for delta in events.add(segment):
                    await answer.send(delta)
            case AudiodError() as error:
                raise error
            case str(language):
                for event in events.end(language, attempt.pcm.duration_s):
                    await answer.send(event)
                return await answer.finish()


async def _as_events(request: web.Request, transcript: Transcript) -> EventStream:
    """A transcript that was there before its first event."""
    answer, events = EventStream(request), Events()
    for segment in transcript.segments:
        for delta in events.add(segment):
            await answer.send(delta)
    for event in events.end(transcript.language, transcript.duration_s):
        await answer.send(event)
    await answer.finish()
    return answer


async def _translated(transcript: Transcript, tag: str, services: Services) -> Transcript:
    """The transcript in another language by the chat endpoint: other words in the same segments."""
    target = cues.read_target(tag)
    segments = transcript.segments
    if transcript.language != target:
        texts = await services.translator.translate([segment.text for segment in segments], tag)
        glue = cues.glue(tag)
        segments = [
            msgspec.structs.replace(segment, text=glue + text.strip(), tokens=[], words=[])
            for segment, text in zip(segments, texts, strict=True)
        ]
    return Transcript(segments, target, transcript.duration_s, "translate")
