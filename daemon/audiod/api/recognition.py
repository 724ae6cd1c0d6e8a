"""An upload heard: decoded, put before a model, and answered as a whole or as events, in its language or another.

Where times of words are wanted that the model does not hear, the aligner hears the audio after it.

What transcriptions and translations have in common. Each checks its own form into an `Asked`; shapes are
transcripts.py's, recognition the engine's, and translate/ asks a language model where the engine cannot translate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import msgspec
from aiohttp import web

from audiod.api.answers import EventStream
from audiod.api.demand import Wishes, at_work, with_second_try
from audiod.api.forms import Form, read_form
from audiod.api.services import BEGUN, MODEL, SERVICES, STAGE, Services
from audiod.api.transcripts import FORMATS, SUBTITLES, Events, Transcript, render
from audiod.media.pool import Pcm
from audiod.models.catalogue import ModelEntry
from audiod.residency.events import Demand
from audiod.segments import by_sentence
from audiod.subtitles.cues import make, with_text
from audiod.tasks import first_failure
from audiod.translate import cues
from audioproto.errors import AudiodError, BadAudio, BadRequest, ModelNotInstalled
from audioproto.languages import code_of
from audioproto.worker import Align, Delta, Done, Passage, Segment, Transcribe

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
    subtitle_mode: Literal["accurate", "fast"] | None = None

    @property
    def as_events(self) -> bool:
        return self.stream and self.response_format in _STREAMED


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What it takes to try once, or again."""

    request: web.Request
    model: str
    work: Transcribe | Align
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
            aligner = _aligner(asked, work, entry, services)
            request[MODEL] = entry.id
            request[STAGE] = "decoding"
            pcm = await _decode(form, services)
        with pcm:
            request[STAGE] = ""
            demand = asked.wishes.to_transcribe(pcm.duration_s, services.config.server.batch_after)
            wait_s = asked.wishes.wait_s(services.config.residency.queue_timeout)
            by_chat = bool(asked.translate_to) and not work.translate_to
            streamed = asked.as_events and not by_chat
            work = msgspec.structs.replace(work, samples=pcm.samples, deltas=streamed)
            attempt = _Attempt(request, entry.id, work, pcm, demand, wait_s)
            if streamed:
                return await with_second_try(partial(_stream, attempt, work), lambda: BEGUN in request)
            transcript = await with_second_try(partial(_whole, attempt, work), lambda: False)
            if aligner and transcript.segments:
                request[STAGE] = "aligning"
                passages = [Passage(segment.start, segment.end, segment.text) for segment in transcript.segments]
                align = Align(0, pcm.samples, passages, transcript.language)
                attempt = replace(attempt, model=aligner.id, work=align)
                transcript = await with_second_try(partial(_aligned, attempt, transcript), lambda: False)
                request[STAGE] = ""
    if asked.response_format == "verbose_json" and not entry.exact_words:
        parts = [part for segment in transcript.segments for part in by_sentence(segment)]
        transcript = replace(transcript, segments=parts)
    if asked.response_format in SUBTITLES:
        return await _subtitles(request, asked, transcript, by_chat=by_chat)
    if by_chat:
        request[STAGE] = "translating"
        transcript = await _translated(transcript, asked.translate_to, services)
        request[STAGE] = ""
    if asked.as_events:
        return await _as_events(request, transcript)
    body = render(asked.response_format, transcript, asked.granularities, work.logprobs)
    return web.Response(body=body, content_type=FORMATS[asked.response_format], charset="utf-8")


def require_abilities(
    entry: ModelEntry, language: str, languages: Sequence[str], logprobs: bool, params: tuple[str, str, str]
) -> None:
    """Raises BadRequest for what the model cannot do, naming that one of `params`, which are for the three."""
    for param, named in ((params[0], [language]), (params[1], languages)):
        for one in filter(None, named):
            if not entry.knows(one):
                hint = "audioctl models lists the languages of each model; without one it is recognised"
                raise BadRequest(f"{entry.id} does not know the language {one!r}", param=param, hint=hint)
    if logprobs and not entry.logprobs:
        raise BadRequest(f"{entry.id} gives no log probabilities", param=params[2])


def _work(asked: Asked, entry: ModelEntry, services: Services) -> Transcribe:
    """What the model is told; it translates where it can. Raises BadRequest for what it cannot do, naming the field."""
    work = asked.work
    require_abilities(entry, work.language, work.languages, work.logprobs, ("language", "languages[]", "include[]"))
    if asked.response_format in SUBTITLES:
        work = msgspec.structs.replace(work, words=asked.subtitle_mode != "fast")
    elif asked.response_format == "verbose_json" and not entry.exact_words:
        work = msgspec.structs.replace(work, words=True)  # to tell its sentences apart
    if not asked.translate_to:
        return work
    target = cues.read_target(asked.translate_to)
    if target in entry.translates:  # it says in one go what it heard: there are no words that were said
        return msgspec.structs.replace(work, translate_to=target, words=False)
    if not services.translator:
        own = ", ".join(entry.translates) or "no other language"
        hint = "have the operator set [translate] in audiod.toml"
        message = f"{entry.id} translates into {own}, and no chat endpoint is configured for {asked.translate_to}"
        raise BadRequest(message, param="translate_to", hint=hint)
    return work


def _aligner(asked: Asked, work: Transcribe, entry: ModelEntry, services: Services) -> ModelEntry | None:
    """The model that hears when each word is said, if one is to, beside that of `entry`.

    Raises ModelNotInstalled where that was asked for and cannot be.
    """
    told = asked.work.words or asked.response_format in SUBTITLES  # else words only tell where sentences end
    mode = asked.subtitle_mode or ("accurate" if told else "fast")
    if entry.exact_words or not work.words or mode == "fast":
        return None
    try:
        return services.library.aligner()
    except ModelNotInstalled as error:
        if asked.subtitle_mode is None:
            return None
        error.param = "subtitle_mode"
        raise


async def _decode(form: Form, services: Services) -> Pcm:
    try:
        return await services.media.decode(form.upload)
    except BadAudio as error:
        if form.is_named:
            raise
        message = "file must be a file part, with a filename; what came as a text field is no audio"
        raise BadRequest(message, param="file") from error


async def _hear(attempt: _Attempt, take: Callable[[Segment | Delta], None]) -> str:
    """Have the model listen; `take` gets each segment as it is finished. Returns the language that was spoken."""
    language = ""
    async with at_work(
        attempt.request, attempt.model, attempt.work, attempt.demand, attempt.wait_s, attempt.pcm.fd
    ) as job:
        async for message in job:
            if isinstance(message, Segment | Delta):
                take(message)
            elif isinstance(message, Done):
                language = message.language
                metrics = attempt.request.app[SERVICES].metrics
                metrics.observe_audio(attempt.model, attempt.pcm.duration_s, message.engine_s)
    return language or code_of(attempt.work.language)


async def _segments(attempt: _Attempt) -> tuple[list[Segment], str]:
    segments: list[Segment] = []

    def take(message: Segment | Delta) -> None:
        if isinstance(message, Segment):
            segments.append(message)

    return segments, await _hear(attempt, take)


async def _whole(attempt: _Attempt, work: Transcribe) -> Transcript:
    segments, language = await _segments(attempt)
    if target := work.translate_to:
        return Transcript(segments, target, attempt.pcm.duration_s, "translate")
    return Transcript(segments, language, attempt.pcm.duration_s)


async def _aligned(attempt: _Attempt, transcript: Transcript) -> Transcript:
    """The same with the times that the aligner heard."""
    aligned, _ = await _segments(attempt)
    segments = [
        msgspec.structs.replace(
            segment, start=heard.start, end=heard.end, words=heard.words, words_estimated=heard.words_estimated
        )
        for segment, heard in zip(transcript.segments, aligned, strict=True)
    ]
    return replace(transcript, segments=segments)


async def _stream(attempt: _Attempt, work: Transcribe) -> EventStream:
    """Send segments as they come. The model does not wait for the client: what it has said is only text."""
    answer = EventStream(attempt.request)
    heard: asyncio.Queue[Segment | Delta | AudiodError | str] = asyncio.Queue()

    async def listen() -> None:
        try:
            language = await _hear(attempt, heard.put_nowait)
        except AudiodError as error:
            heard.put_nowait(error)
        else:
            attempt.request[STAGE] = "sending"
            attempt.pcm.close()
            heard.put_nowait(work.translate_to or language)

    async with first_failure() as tasks:
        tasks.create_task(listen(), name=f"{attempt.model}: transcript")
        await _send(answer, heard, Events(work.logprobs), attempt.pcm.duration_s)
    return answer


async def _send(
    answer: EventStream, heard: asyncio.Queue[Segment | Delta | AudiodError | str], events: Events, duration_s: float
) -> None:
    while True:
        match await heard.get():
            case Segment() as segment:
                for delta in events.add(segment):
                    await answer.send(delta)
            case Delta(text=text):
                for delta in events.preview(text):
                    await answer.send(delta)
            case AudiodError() as error:
                raise error
            case str(language):
                for event in events.end(language, duration_s):
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


async def _subtitles(request: web.Request, asked: Asked, transcript: Transcript, *, by_chat: bool) -> web.Response:
    """Cues keep their numbers and times when the chat endpoint translates them."""
    # Seconds of computing for hours of speech.
    made = await asyncio.to_thread(make, transcript.segments, transcript.duration_s)
    if by_chat and transcript.language != cues.read_target(asked.translate_to):
        request[STAGE] = "translating"
        glue = cues.glue(transcript.language)
        texts = await request.app[SERVICES].translator.translate(
            [glue.join(cue.lines) for cue in made], asked.translate_to
        )
        made = [with_text(cue, text) if text.strip() else cue for cue, text in zip(made, texts, strict=True)]
        request[STAGE] = ""
    return web.Response(
        body=SUBTITLES[asked.response_format](made).encode(),
        content_type=FORMATS[asked.response_format],
        charset="utf-8",
        headers={"x-estimated-cues": str(sum(cue.estimated for cue in made))},
    )


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
