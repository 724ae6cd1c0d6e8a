"""GET /v1/models, /v1/models/{id} and /v1/audio/models: the models that can be used now, by id and by alias.

What a model is stands in the catalogue, where it is now in residency; nothing is changed here.
"""

from __future__ import annotations

from typing import Annotated, Union

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from audiod.api.answers import json_answer
from audiod.api.services import SERVICES, Services
from audiod.models.catalogue import ModelEntry
from audioproto.errors import BadRequest, ModelNotFound, PermissionDenied
from audioproto.types import LicenceNotice, Residency, Task

TASKS = {
    "automatic-speech-recognition": Task.TRANSCRIBE,
    "text-to-speech": Task.SPEAK,
} | {str(task): task for task in Task}
"""What `?task=` takes: our words, and the hub's, which clients of Speaches send."""


class ModelVoice(msgspec.Struct, frozen=True):
    """A voice of a speech model, as it is named in `voice`."""

    id: str
    name: str


class Model(msgspec.Struct, frozen=True, tag_field="object", tag="model"):
    """A model that can be used now. What comes after `owned_by` is ours, not OpenAI's."""

    id: str
    created: Annotated[int, Meta(description="Unix time at which its entry in the catalogue was last changed.")]
    owned_by: str
    task: Annotated[Task, Meta(description="What it does: transcribe or speak.")]
    state: Annotated[Residency, Meta(description="Where it is now; a request for it loads it.")]
    languages: Annotated[list[str], Meta(description="BCP 47 tags of what it understands or speaks.")]
    root: Annotated[str, Meta(description="The model behind an alias; a model's own id.")]
    aliases: Annotated[list[str], Meta(description="Other names that lead to it.")]
    voices: Annotated[
        Union[list[ModelVoice], UnsetType], Meta(description="The voices that a speech model has of its own.")
    ] = UNSET
    clones: Annotated[
        Union[bool, UnsetType], Meta(description="Whether a speech model speaks with stored voices and recordings.")
    ] = UNSET
    emotions: Annotated[Union[bool, UnsetType], Meta(description="Whether a speech model can be told an emotion.")] = (
        UNSET
    )
    licence: Annotated[Union[str, UnsetType], Meta(description="Of its weights, as an SPDX expression.")] = UNSET
    licence_notices: Annotated[
        Union[list[LicenceNotice], UnsetType], Meta(description="Terms that are not those of open source.")
    ] = UNSET


class ModelList(msgspec.Struct, frozen=True, tag_field="object", tag="list"):
    """All of them, on one page."""

    data: list[Model]


class ModelName(msgspec.Struct, frozen=True):
    """A model's name, and what it does."""

    id: str
    name: str
    task: Task


class ModelNames(msgspec.Struct, frozen=True):
    """The models as Open WebUI looks for them."""

    models: list[ModelName]


def _describe(services: Services, name: str) -> Model:
    entry = services.library.named(name)
    state = services.manager.scheduler.models.get(entry.id)
    return Model(
        id=name,
        created=entry.changed,
        owned_by=entry.id.partition("/")[0] if "/" in entry.id else "audiod",
        task=entry.task,
        state=Residency.UNLOADED if state is None else state.state,
        languages=entry.languages,
        root=entry.id,
        aliases=services.library.aliases_of(entry.id) if name == entry.id else [],
        voices=_voices(entry) if entry.task is Task.SPEAK else UNSET,
        clones=entry.clones if entry.task is Task.SPEAK else UNSET,
        emotions=entry.emotions if entry.task is Task.SPEAK else UNSET,
        licence=entry.licence or UNSET,
        licence_notices=list(entry.licence_notices) or UNSET,
    )


def _voices(entry: ModelEntry) -> list[ModelVoice]:
    return [ModelVoice(voice.id, voice.name or voice.id) for voice in entry.voices]


def _named(request: web.Request) -> list[str]:
    """The names of usable models, of the task in `?task=` where there is one. Raises BadRequest."""
    library = request.app[SERVICES].library
    asked = request.query.get("task")
    if asked is None:
        return library.usable_names()
    if asked not in TASKS:
        raise BadRequest(f"task must be one of {', '.join(TASKS)}", param="task")
    return [name for name in library.usable_names() if library.named(name).task is TASKS[asked]]


def _usable(request: web.Request) -> str:
    """The name in the path, slashes and all. Raises ModelNotFound."""
    name = request.match_info["model"]
    if name not in request.app[SERVICES].library.usable_names():
        raise ModelNotFound(
            f"there is no model {name[:200]!r}, or it is not installed", hint="audioctl models", param="model"
        )
    return name


async def list_models(request: web.Request) -> web.Response:
    """Every model that can be used now, and every alias that leads to one."""
    return json_answer(ModelList([_describe(request.app[SERVICES], name) for name in _named(request)]))


async def get_model(request: web.Request) -> web.Response:
    """One of them; ids may contain slashes, raw or percent-encoded."""
    return json_answer(_describe(request.app[SERVICES], _usable(request)))


async def delete_model(request: web.Request) -> web.Response:
    """Always refused: models are the operator's."""
    name = _usable(request)
    raise PermissionDenied(
        f"{name} cannot be deleted over HTTP; the operator takes its file out of models.d", param="model"
    )


async def list_names(request: web.Request) -> web.Response:
    """The same models by name alone, those that speak first, because Open WebUI offers them for that."""
    library = request.app[SERVICES].library
    names = [ModelName(name, name, library.named(name).task) for name in _named(request)]
    return json_answer(ModelNames(sorted(names, key=lambda model: model.task is not Task.SPEAK)))
