"""POST /v1/audio/transcriptions: an upload in any format that FFmpeg reads, its words out.

Checks the form and leases a model; decoding is media's, recognition the engine's, shapes are transcripts.py's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from audiod.api import transcripts
from audiod.api.demand import Wishes, at_work, read_wishes, with_second_try
from audiod.api.forms import Form, read_form
from audiod.api.services import MODEL, SERVICES, STAGE
from audiod.media.pool import Pcm
from audiod.residency.events import Demand
from audioproto.errors import BadRequest
from audioproto.worker import Done, Segment, Transcribe

GRANULARITIES = ("word", "segment")


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
    form.require_file()
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
    named = form.many("timestamp_granularities") or ["segment"]
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
        form = await read_form(request, held)
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
