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

from aiohttp import WSCloseCode, web

from audiod.api import (
    access,
    bodies,
    cors,
    docs,
    errors,
    health,
    metrics,
    models,
    operations,
    speech,
    speech_stream,
    transcriptions,
    translations,
    voices,
)
from audiod.api.answers import EventStream
from audiod.api.realtime import client_secrets
from audiod.api.realtime import handler as realtime
from audiod.api.services import BEGUN, KEY, MODEL, SERVICES, STAGE, STARTED, Services
from audiod.logs import request_id
from audioproto.errors import AudiodError

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: list[web.RouteDef] = [
    web.post("/v1/audio/transcriptions", transcriptions.transcribe, expect_handler=bodies.when_read),
    web.post("/v1/audio/translations", translations.translate, expect_handler=bodies.when_read),
    web.post("/v1/audio/speech", speech.speak, expect_handler=bodies.when_read),
    web.get("/v1/audio/speech/stream", speech_stream.stream, allow_head=False),
    web.get("/v1/audio/voices", voices.list_voices),
    web.post("/v1/audio/voices", voices.create_voice, expect_handler=bodies.when_read),
    web.get("/v1/audio/voices/{voice}", voices.get_voice),
    web.delete("/v1/audio/voices/{voice}", voices.delete_voice),
    web.get("/v1/audio/voices/{voice}/preview", voices.preview_voice),
    web.get("/v1/audio/voice_consents", voices.list_consents),
    web.post("/v1/audio/voice_consents", voices.create_consent, expect_handler=bodies.when_read),
    web.get("/v1/audio/voice_consents/{consent}", voices.get_consent),
    web.post("/v1/audio/voice_consents/{consent}", voices.update_consent, expect_handler=bodies.when_read),
    web.delete("/v1/audio/voice_consents/{consent}", voices.delete_consent),
    web.get("/v1/audio/models", models.list_names),
    web.get("/v1/models", models.list_models),
    web.get("/v1/models/{model:.+}", models.get_model),
    web.delete("/v1/models/{model:.+}", models.delete_model),
    web.get("/v1/realtime", realtime.realtime),
    web.post("/v1/realtime/client_secrets", client_secrets.create, expect_handler=bodies.when_read),
    web.get("/health", health.health),
    web.get("/health/live", health.live),
    web.get("/health/ready", health.ready),
    web.get("/metrics", metrics.metrics),
    web.get("/openapi.json", operations.description),
    web.get("/docs", docs.page),
    web.get("/docs/{file}", docs.file),
]


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, answer its errors, write its log line and count it."""
    request_id.set(_new_id())
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
        if _has_said_goodbye(request):
            status = request[BEGUN].status
        else:
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
        if answer := cors.preflight(request, request.app[SERVICES].config.server.cors_origins):
            return answer
        access.check(request)
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
    begun = request[BEGUN]
    if isinstance(begun, EventStream):
        await begun.fail(failure)
        return begun
    return _cut_off(request)


def _cut_off(request: web.Request) -> web.StreamResponse:
    """It is too late for a status: cut the connection, or half an answer would be taken for a whole one."""
    if request.transport is not None:
        request.transport.abort()
    return request.get(BEGUN) or web.Response()


def _has_said_goodbye(request: web.Request) -> bool:
    """Whether it was a WebSocket that both had closed before the client left: only tidying up was cut short."""
    begun = request.get(BEGUN)
    return isinstance(begun, web.WebSocketResponse) and begun.close_code not in (None, WSCloseCode.ABNORMAL_CLOSURE)


def _count_leaver(request: web.Request) -> None:
    if stage := request.get(STAGE, ""):
        request.app[SERVICES].metrics.observe_cancelled(request.get(MODEL, ""), stage)


def refuse(services: Services, error: AudiodError) -> web.Response:
    """The answer to what is no request at all, and so comes to no handler."""
    request_id.set(_new_id())
    services.metrics.observe_error(error.code)
    logger.info("%d: %s", error.http_status, error.message)
    response = errors.response(error)
    response.headers["x-request-id"] = request_id.get()
    return response


def _new_id() -> str:
    return f"req_{uuid.uuid4().hex}"


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["x-request-id"] = request_id.get()
    cors.stamp(request, response, request.app[SERVICES].config.server.cors_origins)
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
