"""The control application: one route for each request type, and the one place that checks who may send it.

What a request does is handlers.py's matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from audiod.control import auth, handlers
from audioproto.control import REQUESTS, Request
from audioproto.errors import AudiodError, BadRequest, NotFound, PermissionDenied

logger = logging.getLogger(__name__)

CONTROL: web.AppKey[handlers.Control] = web.AppKey("control", handlers.Control)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build(control: handlers.Control) -> web.Application:
    """The application to serve on the Unix socket."""
    app = web.Application(middlewares=[_answer_errors], client_max_size=64 * 1024)
    app[CONTROL] = control
    for kind in REQUESTS:
        app.router.add_route(kind.method, kind.path, _route(kind))
    return app


def _route(kind: type[Request]) -> _Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        if "Origin" in request.headers or "Referer" in request.headers:
            raise PermissionDenied("the control socket is not for browsers")
        assert request.transport is not None
        peer = auth.peer_of(request.transport.get_extra_info("socket"))
        control = request.app[CONTROL]
        allowed = await asyncio.to_thread(auth.may, peer, kind.permission, control.operator_group)
        if not allowed:
            group = control.operator_group
            raise PermissionDenied(
                f"user {peer.uid} may look but not operate", hint=f"sudo usermod -aG {group} USER, then log in again"
            )
        body = await request.read()
        try:
            asked = msgspec.json.decode(body or b"{}", type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadRequest(str(error)) from error
        return await control.handle(asked, request)

    return serve


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AudiodError as error:
        failure = error
    except web.HTTPException as error:
        failure = NotFound(f"audiod does not know {request.method} {request.path}; is audioctl newer than audiod?")
        logger.debug("%s", error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        logger.exception("unexpected error in control request %s", request.path)
        failure = AudiodError("internal error", hint="journalctl -u audiod")
    return refuse(failure)


def refuse(failure: AudiodError) -> web.Response:
    """The answer that tells of `failure`."""
    return web.Response(
        status=failure.http_status, body=msgspec.json.encode(failure.body()), content_type="application/json"
    )
