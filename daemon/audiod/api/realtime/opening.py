"""What a Realtime session is set to when it is opened, from its URL and the key it came with.

This is where a conversation session will part from a transcription session.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from audiod.api.realtime.sessions import Check, Session, Transcription, with_transcription
from audiod.api.recognition import context, require_abilities
from audiod.api.services import Services
from audioproto.errors import AudiodError, BadRequest, ModelNotInstalled, UnsupportedTask
from audioproto.types import Task
from audioproto.worker import Transcribe

_FIRST_CHOICE = "whisper-1"


@dataclass(frozen=True, slots=True)
class Query:
    """The URL's query. `transcription_model` and `language` are Speaches's, as is an intent together with a model."""

    intent: str
    model: str
    transcription_model: str
    language: str


def read_query(query: Mapping[str, str]) -> Query:
    names = ("intent", "model", "transcription_model", "language")
    return Query(*(query.get(name, "") for name in names))


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


def default_model(services: Services) -> str:
    """For a session that names none: what OpenAI's own name leads to, or else any model that can."""
    library = services.library
    if _FIRST_CHOICE in library.usable_names():
        return _FIRST_CHOICE
    return next((entry.id for entry in library.usable(Task.TRANSCRIBE)), _FIRST_CHOICE)


def checker(services: Services) -> Check:
    """What sessions.updated asks. Raises ModelNotFound, ModelNotInstalled, UnsupportedTask and BadRequest."""

    def check(how: Transcription, logprobs: bool) -> None:
        try:
            entry = services.library.transcriber(how.model)
        except AudiodError as error:
            error.param = "session.audio.input.transcription.model"
            raise
        where = "session.audio.input.transcription"
        params = (f"{where}.language", f"{where}.languages", "session.include")
        require_abilities(entry, how.language or "", how.languages or [], logprobs, params)

    return check


def work(how: Transcription, samples: int, *, logprobs: bool = False, words: bool = False) -> Transcribe:
    """What a model is told of a turn."""
    return Transcribe(
        0,
        samples,
        how.language or "",
        context(how.prompt or ""),
        languages=how.languages or [],
        keywords=how.keywords or [],
        logprobs=logprobs,
        words=words,
    )


def new_session(services: Services, like: Session | None = None) -> Session:
    """A transcription session that begins now."""
    limit = services.config.realtime.session_limit
    expires_at = msgspec.UNSET if limit < 0 else int(time.time() + limit)
    if like is not None:
        return msgspec.structs.replace(like, id=new_id("sess"), expires_at=expires_at)
    how = Transcription(default_model(services), delay=services.config.realtime.delay or msgspec.UNSET)
    return with_transcription(Session(new_id("sess"), expires_at), how)


def open_session(services: Services, query: Query, like: Session | None) -> Session:
    """The session that the URL asks for, `like` the one of an ephemeral key.

    Raises BadRequest, ModelNotFound, ModelNotInstalled and UnsupportedTask naming the parameter.
    """
    session = new_session(services, like)
    if query.intent not in ("", "transcription"):
        raise BadRequest(f"intent must be transcription, not {query.intent[:100]!r}", param="intent")
    how = session.audio.input.transcription or Transcription(default_model(services))
    if model := query.transcription_model or query.model:
        try:
            services.library.transcriber(model)
        except ModelNotInstalled:
            raise
        except AudiodError as error:
            if query.intent:
                raise
            raise UnsupportedTask(
                f"{model[:100]!r} is no model that transcribes, and conversations are not served",
                hint="connect with ?intent=transcription",
                param="model",
            ) from error
        how = msgspec.structs.replace(how, model=model)
    if query.language:
        how = msgspec.structs.replace(how, language=query.language)
        checker(services)(how, False)
    return with_transcription(session, how) if model or query.language else session
