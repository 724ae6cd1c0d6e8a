"""GET /health, /health/live and /health/ready. Reads only; must answer while everything else is busy.

Needs no API key, so nothing here names more than models, memory and, where asked, mirrors.
"""

from __future__ import annotations

import asyncio
import platform
import time
from typing import Literal

import msgspec
from aiohttp import web

from audiod import devices
from audiod.api.services import SERVICES, Services
from audiod.models import mirrors
from audiod.models.mirrors import Mirror
from audioproto import PROTOCOL_VERSION, __version__
from audioproto.control import Memory
from audioproto.types import Residency, Task

MIRRORS_KEPT_S = 60.0
"""Whoever may ask for health may not make us knock at the mirrors' doors more often than that."""

_MIRRORS_LIMIT_S = 30.0


class Model(msgspec.Struct, frozen=True):
    task: Task
    state: Residency
    installed: bool
    leases: int
    waiting: int


class Queue(msgspec.Struct, frozen=True):
    """Requests that wait for a model, and how many may."""

    waiting: int
    limit: int


class Versions(msgspec.Struct, frozen=True):
    audiod: str
    protocol: int
    python: str


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str
    reason: str
    versions: Versions
    queue: Queue
    devices: list[Memory]
    models: dict[str, Model]
    mirrors: list[Mirror] | None = None
    """Only where `mirrors=1` was asked for."""


class Live(msgspec.Struct, frozen=True):
    status: Literal["live"] = "live"


class MirrorWatch:
    """What the mirrors answered, remembered for a minute; those who ask at the same time share one answer."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._answer: list[Mirror] = []
        self._asked_at = -MIRRORS_KEPT_S

    async def look(self, services: Services) -> list[Mirror]:
        async with self._asking:
            if time.monotonic() - self._asked_at >= MIRRORS_KEPT_S:
                self._answer = await self._ask(services)
                self._asked_at = time.monotonic()
            return self._answer

    async def _ask(self, services: Services) -> list[Mirror]:
        entries, hub = list(services.library.entries.values()), services.config.mirrors.hub
        try:
            async with asyncio.timeout(_MIRRORS_LIMIT_S):
                return await asyncio.to_thread(mirrors.ask, entries, hub)
        except TimeoutError:
            return [Mirror("mirrors", False, "no answer", _MIRRORS_LIMIT_S, "audioctl doctor --network")]


MIRRORS: web.AppKey[MirrorWatch] = web.AppKey("mirrors", MirrorWatch)


async def health(request: web.Request) -> web.Response:
    """What is going on, for people and dashboards. Always 200 while the daemon runs."""
    services = request.app[SERVICES]
    scheduler = services.manager.scheduler
    now = services.readiness()
    body = Health(
        status=now.status,
        reason=now.reason,
        versions=Versions(__version__, PROTOCOL_VERSION, platform.python_version()),
        queue=Queue(scheduler.queue_length, scheduler.limits.queue_requests),
        devices=await devices.ledger(scheduler),
        models=_models(services),
        mirrors=await request.app[MIRRORS].look(services) if request.query.get("mirrors") == "1" else None,
    )
    return _json(body)


def _models(services: Services) -> dict[str, Model]:
    library, states = services.library, services.manager.scheduler.models
    return {
        entry.id: Model(entry.task, state.state, not library.missing(entry), len(state.leases), len(state.queue))
        for entry in library.entries.values()
        if (state := states.get(entry.id)) is not None
    }


async def live(request: web.Request) -> web.Response:
    """200 while the event loop turns: for a supervisor that restarts what hangs."""
    return _json(Live())


async def ready(request: web.Request) -> web.Response:
    """200 when new work is welcome, else 503 with the reason: for a load balancer."""
    now = request.app[SERVICES].readiness()
    return _json(now, status=200 if now.status == "ready" else 503)


def _json(body: msgspec.Struct, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
