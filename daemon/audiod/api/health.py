"""GET /health, /health/live, /health/ready and /metrics. Reads only; must answer while everything else is busy."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from audiod.api.services import SERVICES
from audioproto import __version__


class _Health(msgspec.Struct):
    status: str
    version: str
    draining: bool
    queue: int
    models: dict[str, str]


async def health(request: web.Request) -> web.Response:
    """What is going on, for people and dashboards. Always 200 while the daemon runs."""
    services = request.app[SERVICES]
    scheduler = services.manager.scheduler
    body = _Health(
        status="ok" if services.ready and not scheduler.draining else "not ready",
        version=__version__,
        draining=scheduler.draining,
        queue=scheduler.queue_length,
        models={state.model: str(state.state) for state in scheduler.models.values()},
    )
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def live(request: web.Request) -> web.Response:
    """200 while the event loop turns: for a supervisor that restarts what hangs."""
    return web.json_response({"status": "live"})


async def ready(request: web.Request) -> web.Response:
    """200 when new work is welcome, else 503: for a load balancer."""
    services = request.app[SERVICES]
    if services.manager.scheduler.draining:
        return web.json_response({"status": "draining"}, status=503)
    if not services.ready:
        return web.json_response({"status": "starting"}, status=503)
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text format 0.0.4."""
    services = request.app[SERVICES]
    services.metrics.observe_models(services.manager.scheduler)
    body = await asyncio.to_thread(services.metrics.render)
    return web.Response(body=body, headers={"Content-Type": services.metrics.content_type})
