"""The aiohttp application: the list of routes, and what happens around every request.

Adding a route is one line in ROUTES. Everything around a request (its id, its log line, its metrics, its errors) is
here once, so that handlers hold nothing but their own matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from audiod.api import bodies, errors, health, metrics, models, speech, speech_stream, transcriptions
from audiod.api.answers import EventStream
from audiod.api.services import BEGUN, KEY, MODEL, SERVICES, STAGE, STARTED, Services
from audiod.logs import request_id
from audioproto.errors import AudiodError

logger = logging.getLogger(__name__)

_NEEDS_KEY = "/v1/"
"""Health and metrics are for machines that watch, and name nothing but models."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: list[web.RouteDef] = [
    web.post("/v1/audio/transcriptions", transcriptions.transcribe, expect_handler=bodies.when_read),
    web.post("/v1/audio/speech", speech.speak, expect_handler=bodies.when_read),
    web.get("/v1/audio/speech/stream", speech_stream.stream, allow_head=False),
    web.get("/v1/audio/voices", models.list_voices),
    web.get("/v1/models", models.list_models),
    web.get("/v1/models/{model:.+}", models.get_model),
    web.get("/health", health.health),
    web.get("/health/live", health.live),
    web.get("/health/ready", health.ready),
    web.get("/metrics", metrics.metrics),
]


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, answer its errors, write its log line and count it."""
    identity = f"req_{uuid.uuid4().hex}"
    request_id.set(identity)
    services = request.app[SERVICES]
    services.running += 1
    started = request[STARTED] = time.monotonic()
    path = request.match_info.route.resource.canonical if request.match_info.route.resource else "unknown"
    services.metrics.begin_request(path)
    status = 499  # nginx's number for "the client left", which no one will ever be sent
    try:
        response = await _answer(request, handler)
        status = response.status
    except asyncio.CancelledError:
        _count_leaver(request)
        raise
    except ConnectionError as error:
        _count_leaver(request)
        if isinstance(error, ConnectionAbortedError):  # it was us who left
            logger.warning("%s is cut off: %s", request.path, error)
        return _cut_off(request)
    finally:
        services.running -= 1
        took_s = time.monotonic() - started
        model = request.get(MODEL, "")
        services.metrics.end_request(path, model, status, took_s)
        if not path.startswith(("/health", "/metrics")):
            key = request.get(KEY, "")
            extra = {"model": model, "status": status, "seconds": round(took_s, 3), "key": key}
            logger.info("%s %s %d %.3f s", request.method, request.path, status, took_s, extra=extra)
    await bodies.finish(request, response, services.config.server)
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        if request.path.startswith(_NEEDS_KEY):
            request[KEY] = request.app[SERVICES].keys.check(request.headers.get("Authorization", ""))
        return await handler(request)
    except AudiodError as error:
        failure = error
    except web.HTTPException as error:
        failure = errors.from_http(error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        logger.exception("unexpected error in %s %s", request.method, request.path)
        failure = AudiodError("internal error; the log has the details under this request's id")
    request.app[SERVICES].metrics.observe_error(failure.code)
    if BEGUN not in request:
        return errors.response(failure)
    logger.warning("%s failed after its answer had begun: %s", request.path, failure.message)
    answer = request[BEGUN]
    if isinstance(answer, EventStream):
        await answer.fail(failure)
        return answer
    return _cut_off(request)


def _cut_off(request: web.Request) -> web.StreamResponse:
    """It is too late for a status: cut the connection, or half an answer would be taken for a whole one."""
    if request.transport is not None:
        request.transport.abort()
    return request.get(BEGUN) or web.Response()


def _count_leaver(request: web.Request) -> None:
    if stage := request.get(STAGE, ""):
        request.app[SERVICES].metrics.observe_cancelled(request.get(MODEL, ""), stage)


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["x-request-id"] = request_id.get()
    if request.app[SERVICES].stopping:
        response.headers["Connection"] = "close"
        response.force_close()


def build(services: Services) -> web.Application:
    """The HTTP application on `services`."""
    app = web.Application(middlewares=[around], client_max_size=bodies.JSON_BODY_BYTES)
    app[SERVICES] = services
    app[health.MIRRORS] = health.MirrorWatch()
    app.on_response_prepare.append(_stamp)
    app.add_routes(ROUTES)
    return app
