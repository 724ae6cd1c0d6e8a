"""GET /openapi.json: what the HTTP API can do, for programs; docs.py shows it to people.

A route of app.py has its line here; what its bodies look like is said by their types, which stand with the handlers.
"""

from __future__ import annotations

from functools import cache

from aiohttp import web

from audiod.api import health, openapi, speech
from audiod.api.errors import ErrorEnvelope
from audiod.api.openapi import BYTES, TEXT, Form, Operation, Parameter
from audiod.api.services import Readiness
from audiod.media.formats import SpeechFormat
from audioproto import __version__
from audioproto.errors import (
    BadRequest,
    Draining,
    EngineFailed,
    ModelFailed,
    ModelNotFound,
    ModelNotInstalled,
    ModelTooLarge,
    NotFound,
    OutOfMemory,
    QueueFull,
    QueueTimeout,
    Unauthorized,
    UnspeakableText,
    UnsupportedTask,
    UploadStalled,
    UploadTooLarge,
    VoiceNotFound,
    WorkerDied,
)

INFO = {
    "title": "audiod",
    "version": __version__,
    "summary": "Speech to text and text to speech behind the OpenAI audio API.",
    "description": (
        "OpenAI's SDKs speak to it with their `base_url` set to this host and `/v1`. Keys that this description does "
        "not name are ignored. Every answer has an `x-request-id`, under which the daemon's log tells of it."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

TAGS = {
    "Audio": "Speech to text and text to speech.",
    "Models": "What can be asked for.",
    "Health": "For people, dashboards, supervisors and load balancers. Needs no key.",
}

_SENT = (BadRequest, UploadStalled, UploadTooLarge)
"""What can be wrong with any body."""

_WORK = (
    *(ModelNotFound, ModelNotInstalled, ModelTooLarge, OutOfMemory, UnsupportedTask, EngineFailed),
    *(QueueFull, QueueTimeout, Draining, ModelFailed, WorkerDied),
)
"""What can happen to whoever wants a model to work."""

OPERATIONS = [
    Operation(
        "POST",
        "/v1/audio/speech",
        "Audio",
        "Speak a text",
        "The audio is sent as it is spoken.",
        body=speech.SpeechRequest,
        answers={kind.content_type: BYTES for kind in SpeechFormat},
        errors=(Unauthorized, *_SENT, *_WORK, VoiceNotFound, UnspeakableText),
    ),
    Operation(
        "POST",
        "/v1/audio/transcriptions",
        "Audio",
        "Transcribe a recording",
        form=Form({"type": "object", "properties": {"model": TEXT}, "required": ["model"]}, {"file": "The recording."}),
        answers={"application/json": {"type": "object"}, "text/plain": TEXT, "text/vtt": TEXT},
        errors=(Unauthorized, *_SENT, *_WORK),
    ),
    Operation(
        "GET",
        "/v1/audio/voices",
        "Models",
        "List the voices",
        answers={"application/json": {"type": "object"}},
        errors=(Unauthorized,),
    ),
    Operation(
        "GET",
        "/v1/models",
        "Models",
        "List the models",
        answers={"application/json": {"type": "object"}},
        errors=(Unauthorized,),
    ),
    Operation(
        "GET",
        "/v1/models/{model}",
        "Models",
        "One model",
        answers={"application/json": {"type": "object"}},
        errors=(Unauthorized, ModelNotFound),
    ),
    Operation(
        "GET",
        "/health",
        "Health",
        "What is going on",
        parameters=[Parameter("mirrors", "`1` also asks the mirrors whether they answer.")],
        answers={"application/json": health.Health},
    ),
    Operation("GET", "/health/live", "Health", "Whether the daemon lives", answers={"application/json": health.Live}),
    Operation(
        "GET",
        "/health/ready",
        "Health",
        "Whether new work is welcome",
        "503 where it is not, with the reason.",
        answers={"application/json": Readiness},
        other_statuses={503: Readiness},
    ),
    Operation("GET", "/metrics", "Health", "Metrics for Prometheus", answers={"text/plain": TEXT}),
    Operation("GET", "/openapi.json", "Health", "This description", answers={"application/json": {"type": "object"}}),
    Operation("GET", "/docs", "Health", "This description as a page", answers={"text/html": TEXT}),
    Operation(
        "GET",
        "/docs/{file}",
        "Health",
        "What the page is made of",
        answers={"text/css": TEXT, "text/javascript": TEXT},
        errors=(NotFound,),
    ),
]


@cache
def document() -> bytes:
    """The description in JSON, made once."""
    return openapi.document(OPERATIONS, INFO, ErrorEnvelope, TAGS)


async def description(request: web.Request) -> web.Response:
    """The API in OpenAPI 3.1, from the types that decode its requests."""
    return web.Response(body=document(), content_type="application/json")
