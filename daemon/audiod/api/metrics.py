"""GET /metrics, for Prometheus: its text format, or OpenMetrics for whoever asks for that.

Needs no API key. What is measured, and under which names, is audiod/metrics.py's.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from audiod.api.services import SERVICES


async def metrics(request: web.Request) -> web.Response:
    """All metrics as they are now."""
    services = request.app[SERVICES]
    manager = services.manager
    ready = services.readiness().status == "ready"
    services.metrics.look(manager.scheduler, manager.now(), ready=ready)
    body, content_type = await asyncio.to_thread(services.metrics.render, request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})
