"""POST /v1/realtime/client_secrets: an ephemeral key for a browser, with what its sessions are set to.

The keys themselves are secrets.py's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from audiod.api import bodies
from audiod.api.answers import json_answer
from audiod.api.realtime import opening
from audiod.api.realtime.events import placed
from audiod.api.realtime.sessions import Session, updated
from audiod.api.services import KEY, SERVICES, STAGE
from audioproto.errors import BadRequest


class ExpiresAfter(msgspec.Struct):
    """How long the key may be used to open sessions; an open one outlives it."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Meta(ge=10, le=7200, description="From now.")] = 600


class ClientSecretRequest(msgspec.Struct):
    """What a key is to be good for. Unknown keys are ignored."""

    expires_after: ExpiresAfter = msgspec.field(default_factory=ExpiresAfter)
    session: Annotated[
        dict[str, Any], Meta(description="A transcription session, as in the event session.update.")
    ] = {}


class ClientSecret(msgspec.Struct):
    """A key that opens sessions at /v1/realtime and nothing else, until `expires_at` (Unix time)."""

    value: str
    expires_at: int
    session: Session


_decoder = msgspec.json.Decoder(ClientSecretRequest)


async def create(request: web.Request) -> web.Response:
    """Answer with a ClientSecret."""
    services = request.app[SERVICES]
    request[STAGE] = "uploading"
    body = await bodies.read_json_body(request, services.config.server)
    request[STAGE] = ""
    asked = parse(body)
    first = opening.new_session(services)
    session = updated(first, asked.session, opening.default_model(services), opening.checker(services))
    value, expires_at = services.temporary_keys.create(session, asked.expires_after.seconds, request.get(KEY, ""))
    return json_answer(ClientSecret(value, expires_at, session))


def parse(body: bytes | bytearray) -> ClientSecretRequest:
    """The checked body; an empty one asks for nothing in particular. Raises BadRequest naming the field."""
    try:
        return _decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        message, param = placed(str(error))
        raise BadRequest(message, param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
