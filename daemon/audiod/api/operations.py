"""GET /openapi.json: what the HTTP API can do, for programs; docs.py shows it to people.

A route of app.py has its line here; what its bodies look like is said by their types, which stand with the handlers.
"""

from __future__ import annotations

import asyncio
from functools import cache
from inspect import cleandoc
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from audiod.api import (
    health,
    models,
    openapi,
    speaking,
    speech,
    speech_stream,
    transcriptions,
    transcripts,
    translations,
    voices,
)
from audiod.api.errors import ErrorEnvelope
from audiod.api.openapi import BYTES, TEXT, Events, Form, Operation, Parameter
from audiod.api.realtime import client_secrets
from audiod.api.services import Readiness
from audiod.media.formats import SpeechFormat
from audioproto import __version__
from audioproto.errors import (
    AudioTooLong,
    BadAudio,
    BadRequest,
    ConsentNotFound,
    Draining,
    EngineFailed,
    ModelFailed,
    ModelNotFound,
    ModelNotInstalled,
    ModelTooLarge,
    NotFound,
    OutOfMemory,
    PermissionDenied,
    QueueFull,
    QueueTimeout,
    StoreFailed,
    StoreFull,
    TranslatorFailed,
    TranslatorUnavailable,
    UnspeakableText,
    UnsupportedTask,
    UploadStalled,
    UploadTooLarge,
    VoiceNotFound,
    VoiceNotSpoken,
    WorkerDied,
)

INFO = {
    "title": "audiod",
    "version": __version__,
    "summary": "Speech to text and text to speech behind the OpenAI audio API.",
    "description": (
        "OpenAI's SDKs speak to it with their `base_url` set to this host and `/v1`. Keys and fields that this "
        "description does not name are ignored. Every answer has an `x-request-id`, under which the daemon's log "
        "tells of it. A key is needed where the operator has set any."
    ),
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

TAGS = {
    "Audio": "Speech to text and text to speech.",
    "Realtime": "Transcripts of what is being said.",
    "Models": "What can be asked for.",
    "Voices": "Voices of models, stored voices, and the consents of their speakers.",
    "Daemon": "For people, dashboards, supervisors and load balancers. Needs no key.",
}

_JSON = "application/json"
_EVENTS = "text/event-stream"

_SENT = (BadRequest, UploadStalled, UploadTooLarge, QueueFull)
"""What can be wrong with any body."""

_WORK = (
    *(ModelNotFound, ModelNotInstalled, ModelTooLarge, OutOfMemory, UnsupportedTask, EngineFailed),
    *(QueueTimeout, Draining, ModelFailed, WorkerDied),
)
"""What can happen to whoever wants a model to work."""

_HEARD = (*_SENT, *_WORK, BadAudio, AudioTooLong, TranslatorFailed, TranslatorUnavailable)

_TASK = Parameter("task", "Only models that do this.", {"type": "string", "enum": list(models.TASKS)})

OPERATIONS = [
    Operation(
        "POST",
        "/v1/audio/transcriptions",
        "Audio",
        "Transcribe a recording",
        forms=[Form(transcriptions.TranscriptionForm, {"file": "The recording, in any format that FFmpeg reads."})],
        answers={
            _JSON: (transcripts.Transcription, transcripts.TranscriptionVerbose),
            "text/plain": TEXT,
            "text/vtt": TEXT,
            _EVENTS: Events((transcripts.TranscriptTextDelta, transcripts.TranscriptTextDone)),
        },
        errors=_HEARD,
    ),
    Operation(
        "POST",
        "/v1/audio/translations",
        "Audio",
        "Translate a recording into English, or another language",
        forms=[Form(translations.TranslationForm, {"file": "The recording, in any format that FFmpeg reads."})],
        answers={
            _JSON: (transcripts.Translation, transcripts.TranscriptionVerbose),
            "text/plain": TEXT,
            "text/vtt": TEXT,
        },
        errors=_HEARD,
    ),
    Operation(
        "POST",
        "/v1/audio/speech",
        "Audio",
        "Speak a text",
        "The audio is sent as it is spoken.",
        body=speech.SpeechRequest,
        answers={kind.content_type: BYTES for kind in SpeechFormat}
        | {_EVENTS: Events((speech.AudioDelta, speaking.SpeechProgress, speech.AudioDone))},
        errors=(*_SENT, *_WORK, VoiceNotFound, VoiceNotSpoken, UnspeakableText, BadAudio, AudioTooLong, StoreFailed),
    ),
    Operation(
        "GET",
        "/v1/audio/speech/stream",
        "Audio",
        "Speak over a WebSocket",
        cleandoc(speech_stream.__doc__ or ""),
        status=101,
        errors=(BadRequest, PermissionDenied),
    ),
    Operation(
        "GET",
        "/v1/realtime",
        "Realtime",
        "Transcribe over a WebSocket what is being said",
        "The events are those of OpenAI's Realtime API for `session.type` = `transcription`.",
        parameters=[
            Parameter("intent", "`transcription`, or left out."),
            Parameter("model", "A model that transcribes; the session may name another."),
            Parameter("transcription_model", "The same, as Speaches takes it."),
            Parameter("language", "ISO 639-1 code."),
        ],
        status=101,
        errors=(BadRequest, PermissionDenied, QueueFull),
    ),
    Operation(
        "POST",
        "/v1/realtime/client_secrets",
        "Realtime",
        "Make a key for a browser",
        "It opens sessions at /v1/realtime, and nothing else, until it expires.",
        body=client_secrets.ClientSecretRequest,
        is_body_optional=True,
        answers={_JSON: client_secrets.ClientSecret},
        errors=(*_SENT, ModelNotFound, ModelNotInstalled, UnsupportedTask),
    ),
    Operation(
        "GET",
        "/v1/models",
        "Models",
        "List the models and their aliases",
        parameters=[_TASK],
        answers={_JSON: models.ModelList},
        errors=(BadRequest,),
    ),
    Operation(
        "GET",
        "/v1/models/{model}",
        "Models",
        "Look at one model",
        answers={_JSON: models.Model},
        errors=(ModelNotFound,),
    ),
    Operation(
        "DELETE",
        "/v1/models/{model}",
        "Models",
        "Refused: models are the operator's",
        status=403,
        errors=(ModelNotFound, PermissionDenied),
    ),
    Operation(
        "GET",
        "/v1/audio/models",
        "Models",
        "List the models by name, as Open WebUI asks for them",
        parameters=[_TASK],
        answers={_JSON: models.ModelNames},
        errors=(BadRequest,),
    ),
    Operation(
        "GET",
        "/v1/audio/voices",
        "Voices",
        "List the voices",
        parameters=[Parameter("legacy", "`true`: only their ids.")],
        answers={_JSON: voices.VoiceList},
    ),
    Operation(
        "POST",
        "/v1/audio/voices",
        "Voices",
        "Store a voice",
        "From a recording, by a form; or from a description, by JSON or a form.",
        body=voices.VoicePrompt,
        forms=[
            Form(voices.VoiceSampleForm, {"audio_sample": "The recording, at most 10 MiB."}),
            Form(voices.VoicePrompt),
        ],
        answers={_JSON: voices.StoredVoiceObject},
        errors=(*_SENT, BadAudio, AudioTooLong, ConsentNotFound, StoreFull, StoreFailed),
    ),
    Operation(
        "GET",
        "/v1/audio/voices/{voice}",
        "Voices",
        "Look at one voice",
        answers={_JSON: (voices.StoredVoiceObject, voices.ListedVoice)},
        errors=(NotFound,),
    ),
    Operation(
        "DELETE",
        "/v1/audio/voices/{voice}",
        "Voices",
        "Delete a stored voice",
        answers={_JSON: voices.VoiceDeleted},
        errors=(NotFound, PermissionDenied, StoreFailed),
    ),
    Operation(
        "GET",
        "/v1/audio/voices/{voice}/preview",
        "Voices",
        "Hear the recording of a stored voice",
        answers={"audio/wav": BYTES},
        errors=(NotFound,),
    ),
    Operation(
        "GET",
        "/v1/audio/voice_consents",
        "Voices",
        "List the consents",
        parameters=[
            Parameter("after", "The last id of the page before."),
            Parameter("limit", "How many at most, 20 where left out.", Annotated[int, Meta(ge=1, le=100)]),
        ],
        answers={_JSON: voices.ConsentList},
        errors=(BadRequest,),
    ),
    Operation(
        "POST",
        "/v1/audio/voice_consents",
        "Voices",
        "Store a consent",
        forms=[Form(voices.ConsentForm, {"recording": "The consent as it was spoken, at most 10 MiB."})],
        answers={_JSON: voices.ConsentObject},
        errors=(*_SENT, BadAudio, AudioTooLong, StoreFull, StoreFailed),
    ),
    Operation(
        "GET",
        "/v1/audio/voice_consents/{consent}",
        "Voices",
        "Look at one consent",
        answers={_JSON: voices.ConsentObject},
        errors=(NotFound,),
    ),
    Operation(
        "POST",
        "/v1/audio/voice_consents/{consent}",
        "Voices",
        "Rename a consent",
        body=voices.ConsentUpdate,
        answers={_JSON: voices.ConsentObject},
        errors=(*_SENT, NotFound, StoreFailed),
    ),
    Operation(
        "DELETE",
        "/v1/audio/voice_consents/{consent}",
        "Voices",
        "Delete a consent",
        answers={_JSON: voices.ConsentDeleted},
        errors=(NotFound, StoreFailed),
    ),
    Operation(
        "GET",
        "/health",
        "Daemon",
        "What is going on",
        parameters=[Parameter("mirrors", "`1` also asks the mirrors whether they answer.")],
        answers={_JSON: health.Health},
    ),
    Operation("GET", "/health/live", "Daemon", "Whether the daemon lives", answers={_JSON: health.Live}),
    Operation(
        "GET",
        "/health/ready",
        "Daemon",
        "Whether new work is welcome",
        "503 where it is not, with the reason.",
        answers={_JSON: Readiness},
        other_statuses={503: Readiness},
    ),
    Operation("GET", "/metrics", "Daemon", "Metrics for Prometheus", answers={"text/plain": TEXT}),
    Operation("GET", "/openapi.json", "Daemon", "This description", answers={_JSON: {"type": "object"}}),
    Operation("GET", "/docs", "Daemon", "This description as a page", answers={"text/html": TEXT}),
    Operation(
        "GET",
        "/docs/{file}",
        "Daemon",
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
    # The first time it takes 0.2 s, in which nobody's audio is to stand still.
    return web.Response(body=await asyncio.to_thread(document), content_type="application/json")
