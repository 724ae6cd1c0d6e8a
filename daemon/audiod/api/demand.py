"""What a request asks of its model beside its work: how long, how urgent, and the lease that comes of it.

The extensions of OpenAI's API are read here, for all endpoints. Who waits for whom is residency's matter.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, TypeVar, Union

from aiohttp import web
from msgspec import Meta

from audiod.api.services import SERVICES
from audiod.residency.events import Demand
from audiod.units import Duration
from audioproto.errors import BadRequest, OutOfMemory, WorkerDied
from audioproto.types import Priority
from audioproto.worker import Align, FromWorker, Synthesize, Transcribe

Value = Union[Annotated[str, Meta(max_length=100)], int, float, None]
"""Of an extension: JSON's own, or a form's text; None where it was not sent."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The checked extensions of one request; None is what was not asked for."""

    priority: Priority | None = None
    keep_alive_s: float | None = None
    park_keep_alive_s: float | None = None
    timeout_s: float | None = None

    def to_transcribe(self, duration_s: float, batch_after: Duration) -> Demand:
        """Who sends a recording longer than `batch_after` can wait, unless the request says otherwise."""
        default = Priority.BATCH if 0 <= batch_after < duration_s else Priority.INTERACTIVE
        return Demand(duration_s, self.priority or default, self.keep_alive_s, self.park_keep_alive_s)

    def to_speak(self, text: str) -> Demand:
        priority = self.priority or Priority.INTERACTIVE
        return Demand(len(text), priority, self.keep_alive_s, self.park_keep_alive_s)

    def wait_s(self, queue_timeout: Duration) -> float:
        """The longest wait in the queue: what was asked for, and never longer than `queue_timeout`."""
        longest_s = math.inf if queue_timeout < 0 else float(queue_timeout)
        return longest_s if self.timeout_s is None else min(longest_s, self.timeout_s)


def read_wishes(priority: Value, keep_alive: Value, park_keep_alive: Value, timeout: Value) -> Wishes:
    """Raises BadRequest naming the field at fault."""
    if priority is not None and priority not in set(Priority):
        raise BadRequest(f"priority must be one of {', '.join(Priority)}", param="priority")
    timeout_s = _duration("timeout", timeout)
    if timeout_s is not None and timeout_s <= 0:
        raise BadRequest("timeout must be longer than 0 s", param="timeout")
    return Wishes(
        None if priority is None else Priority(str(priority)),
        _duration("keep_alive", keep_alive),
        _duration("park_keep_alive", park_keep_alive),
        timeout_s,
    )


def _duration(name: str, value: Value) -> float | None:
    """As Ollama takes it: `"10m"`, a number of seconds, and never for whatever is negative."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            text = value.strip()
            is_negative = text.startswith("-") and Duration.parse(text[1:]) >= 0
        else:
            is_negative = value < 0
        return Duration.NEVER if is_negative else float(Duration.parse(value))
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name}: {error}", param=name) from error


@asynccontextmanager
async def at_work(
    request: web.Request,
    model: str,
    work: Transcribe | Align | Synthesize,
    demand: Demand,
    wait_s: float,
    descriptor: int | None = None,
) -> AsyncIterator[AsyncIterable[FromWorker]]:
    """`model` at `work`: leased when its turn has come, given back on leaving. Yields the worker's messages."""
    manager = request.app[SERVICES].manager
    async with manager.lease(model, wait_s, demand) as lease, lease.run(work, descriptor) as job:
        yield job


async def with_second_try(attempt: Callable[[], Awaitable[T]], has_begun: Callable[[], bool]) -> T:
    """What `attempt` gives, at its second try where a worker died or had no memory before the client got anything."""
    try:
        return await attempt()
    except (WorkerDied, OutOfMemory):
        if has_begun():
            raise
        return await attempt()
