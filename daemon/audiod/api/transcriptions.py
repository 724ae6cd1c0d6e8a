"""POST /v1/audio/transcriptions: an upload in any format that FFmpeg reads, its words out.

Parses the form and leases a model; decoding is media's, recognition the engine's, shapes are transcripts.py's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from audiod.api import transcripts
from audiod.api.bodies import READ_BYTES, Body
from audiod.api.demand import Wishes, at_work, read_wishes, with_second_try
from audiod.api.services import MODEL, SERVICES, STAGE
from audiod.config import Server
from audiod.media.audio_memory import Held
from audiod.media.pool import Pcm
from audiod.media.upload import Upload, too_large
from audiod.residency.events import Demand
from audioproto.errors import BadRequest
from audioproto.worker import Done, Segment, Transcribe

FIELD_BYTES = 64 * 1024
"""Longest text field of the form."""

FORM_BYTES = 1024 * 1024
"""What a form may have beside its file: text fields, boundaries, headers of parts."""

GRANULARITIES = ("word", "segment")
_MAX_PARTS = 1000


@dataclass(slots=True)
class Form:
    """The multipart form as read: the file in memory outside the heap, and the text fields by name."""

    upload: Upload
    fields: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    has_file: bool = False

    def text(self, name: str, default: str = "") -> str:
        return self.fields[name][-1] if self.fields.get(name) else default

    def extension(self, name: str) -> str | None:
        return self.text(name) or None


async def read_form(request: web.Request, server: Server, held: Held) -> Form:
    """Read the whole form; the caller closes `upload`. Fields may come before or after the file.

    Raises BadRequest for anything but a form, UploadTooLarge, UploadStalled, and what Held.reserve raises: before any
    of the body is read, where the client says how long it is.
    """
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    if kind != "multipart/form-data":
        raise BadRequest("send multipart/form-data with the fields file and model")
    limit_bytes = int(server.upload_limit)
    body = Body(request, limit_bytes + FORM_BYTES, server.upload_stall, too_large(limit_bytes))
    body.refuse_early()
    form = Form(Upload(limit_bytes, held, request.content_length or 0))
    try:
        parser = PushMultipartParser(options.get("boundary", ""), max_segment_count=_MAX_PARTS)
        await _read_parts(parser.parse_async(body.read, READ_BYTES), form)
        form.upload.complete()
    except MultipartError as error:
        form.upload.close()
        raise BadRequest(f"the multipart body is malformed: {error}") from error
    except BaseException:
        form.upload.close()
        raise
    return form


async def _read_parts(events: AsyncIterator[MultipartSegment | bytes | bytearray | None], form: Form) -> None:
    """Each part comes as its headers, then its content in pieces, then None."""
    name, text, total_bytes = "", bytearray(), 0
    async for event in events:
        if isinstance(event, MultipartSegment):
            name, text = event.name or "", bytearray()
            form.has_file |= name == "file"
        elif event is None:
            if name not in ("", "file"):
                form.fields[name].append(_decoded(name, text))
        elif name == "file":
            form.upload.write(event)
        else:
            text += event
            total_bytes += len(event)
            if len(text) > FIELD_BYTES:
                raise BadRequest(f"the field {name} is longer than {FIELD_BYTES} bytes", param=name)
            if total_bytes > FORM_BYTES:
                raise BadRequest(f"the form's fields are longer than {FORM_BYTES} bytes together")


def _decoded(name: str, text: bytearray) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the field {name} is not UTF-8", param=name) from error


@dataclass(frozen=True, slots=True)
class Asked:
    """The checked text fields."""

    model: str
    response_format: str
    language: str
    prompt: str
    temperature: float
    granularities: tuple[str, ...]
    wishes: Wishes


def check(form: Form) -> Asked:
    """Raises BadRequest naming the field at fault."""
    if not form.has_file:
        raise BadRequest("the form has no file", param="file")
    model = form.text("model")
    if not model:
        raise BadRequest("the form has no model", param="model")
    response_format = form.text("response_format", "json")
    if response_format not in transcripts.FORMATS:
        known = ", ".join(transcripts.FORMATS)
        raise BadRequest(f"response_format must be one of {known}", param="response_format")
    try:
        temperature = float(form.text("temperature", "0"))
    except ValueError:
        temperature = math.nan
    if not 0 <= temperature <= 1:
        raise BadRequest("temperature must be a number from 0 to 1", param="temperature")
    named = form.fields.get("timestamp_granularities[]") or form.fields.get("timestamp_granularities") or ["segment"]
    for granularity in named:
        if granularity not in GRANULARITIES:
            raise BadRequest("timestamp_granularities[] must be word or segment", param="timestamp_granularities[]")
    wishes = read_wishes(
        form.extension("priority"),
        form.extension("keep_alive"),
        form.extension("park_keep_alive"),
        form.extension("timeout"),
    )
    return Asked(model, response_format, form.text("language"), form.text("prompt"), temperature, tuple(named), wishes)


async def transcribe(request: web.Request) -> web.StreamResponse:
    """Answer in the response_format asked for. A worker that dies or has no memory is forgiven once."""
    services = request.app[SERVICES]
    server = services.config.server
    with services.audio_memory.hold() as held:
        request[STAGE] = "uploading"
        form = await read_form(request, server, held)
        with form.upload:
            asked = check(form)
            entry = services.library.transcriber(asked.model)
            request[MODEL] = entry.id
            request[STAGE] = "decoding"
            pcm = await services.media.decode(form.upload)
        with pcm:
            request[STAGE] = ""
            duration_s = pcm.duration_s
            work = Transcribe(
                0, pcm.samples, asked.language, asked.prompt, asked.temperature, words="word" in asked.granularities
            )
            demand = asked.wishes.to_transcribe(duration_s, server.batch_after)
            wait_s = asked.wishes.wait_s(services.config.residency.queue_timeout)
            attempt = partial(_recognise, request, entry.id, work, pcm, demand, wait_s)
            segments, language = await with_second_try(request, attempt)
    body = transcripts.render(asked.response_format, segments, language, duration_s, asked.granularities)
    return web.Response(body=body, content_type=transcripts.FORMATS[asked.response_format], charset="utf-8")


async def _recognise(
    request: web.Request, model: str, work: Transcribe, pcm: Pcm, demand: Demand, wait_s: float
) -> tuple[list[Segment], str]:
    services = request.app[SERVICES]
    segments: list[Segment] = []
    language = ""
    async with at_work(request, model, work, demand, wait_s, pcm.fd) as job:
        async for message in job:
            if isinstance(message, Segment):
                segments.append(message)
            elif isinstance(message, Done):
                language = message.language
                services.metrics.observe_audio(model, pcm.duration_s, message.engine_s)
    return segments, language
