"""GET /v1/models, /v1/models/{id} and /v1/audio/voices."""

from __future__ import annotations

from aiohttp import web

from audiod.api.answers import json_answer
from audiod.api.services import SERVICES
from audiod.models.library import Library
from audioproto.errors import ModelNotFound
from audioproto.types import Task


def _describe(library: Library, name: str) -> dict[str, object]:
    entry = library.named(name)
    model: dict[str, object] = {
        "id": name,
        "object": "model",
        "created": library.created,
        "owned_by": "audiod",
        "task": str(entry.task),
        "languages": entry.languages,
    }
    if entry.task is Task.SPEAK:
        model["voices"] = [{"id": voice.id, "name": voice.name or voice.id} for voice in entry.voices]
    return model


async def list_models(request: web.Request) -> web.Response:
    """Every model that can be used now, and every alias that leads to one."""
    library = request.app[SERVICES].library
    return json_answer({"object": "list", "data": [_describe(library, name) for name in library.usable_names()]})


async def get_model(request: web.Request) -> web.Response:
    """One of them; ids may contain slashes, raw or percent-encoded."""
    library = request.app[SERVICES].library
    name = request.match_info["model"]
    if name not in library.usable_names():
        raise ModelNotFound(
            f"there is no model {name!r}, or it is not installed", hint="audioctl models", param="model"
        )
    return json_answer(_describe(library, name))


async def list_voices(request: web.Request) -> web.Response:
    """The voices of all usable speech models, as the clients' convention has it: `{"voices": [{"id", "name"}]}`."""
    library = request.app[SERVICES].library
    voices = [
        {"id": voice.id, "name": voice.name or voice.id, "language": voice.language, "model": entry.id}
        | ({"gender": voice.gender} if voice.gender else {})
        for entry in library.usable(Task.SPEAK)
        for voice in entry.voices
    ]
    return json_answer({"voices": voices})


async def list_names(request: web.Request) -> web.Response:
    """The same models as Open WebUI looks for them: `{"models": [{"id"}]}`."""
    library = request.app[SERVICES].library
    return json_answer({"models": [{"id": name} for name in library.usable_names()]})
