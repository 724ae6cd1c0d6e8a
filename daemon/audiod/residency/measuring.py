"""What devices and workers hold, as the scheduler is to know it: measured when it matters, told as events.

Decides nothing, and starts and ends no process: manager.py calls it before, after and between.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from audiod.devices import CPU
from audiod.meters import Meter, Reading, others_bytes, reclaimed, taken_bytes
from audiod.residency.events import HOST, DeviceMeasured, Event, WorkerMeasured
from audiod.residency.machine import ModelState
from audiod.residency.scheduler import Scheduler
from audiod.supervisor.worker import Worker
from audiod.tasks import Tasks
from audioproto.errors import DeviceUnreadable, OutOfMemory

_RECLAIM_TIMEOUT_S = 5.0
"""A driver gives memory back some 0.5 to 1.5 s after its process is gone. Source: Ollama, server/sched.go."""

_WORKER_EVERY_S = 10.0
"""Looking at a worker's memory takes milliseconds of a core, for each of many short requests too much."""

_MIB = 2**20


@dataclass(slots=True)
class _Watched:
    """A worker, and what it did since it was last measured."""

    worker: Worker
    largest_size: float = 0.0
    measured_at: float = -math.inf
    measuring: bool = False


class Measuring:
    """Use as an async context manager beside the manager's tasks. `feed` takes the events."""

    def __init__(self, scheduler: Scheduler, meter: Callable[[str], Meter], feed: Callable[[Event], None]) -> None:
        self.on_learnt: Callable[[ModelState], None] = lambda state: None
        """Told of every model whose footprint may have changed."""
        self._scheduler = scheduler
        self._meter = meter
        self._feed = feed
        self._watched: dict[str, _Watched] = {}
        self._tasks = Tasks()

    async def __aenter__(self) -> Measuring:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._watched.clear()
        await self._tasks.__aexit__(None, None, None)

    # --- devices --------------------------------------------------------------------------------------------------

    async def look(self, device: str) -> Reading | None:
        """Tell what the device has, and what others hold there. The reading; None where it does not answer."""
        placement = self._scheduler.placement
        pids = [watched.worker.pid for watched in self._watched.values()] if device != CPU else []
        try:
            reading = await self._meter(device).read(pids)
        except DeviceUnreadable:  # the meter's name is in status as one that does not answer
            self._feed(DeviceMeasured(device, 0, 0))
            return None
        # The host's own figures would take milliseconds for each process; what was promised is near enough.
        told = reading.held_bytes(pids) if device != CPU else None
        promised = placement.reserved(device) + (placement.reserved(HOST) if device == CPU else 0)
        others = others_bytes(reading, promised if told is None else told)
        self._feed(DeviceMeasured(device, reading.total_bytes, others))
        return reading

    def require(self, model: str, reading: Reading | None) -> None:
        """Raise OutOfMemory where the device has not free what `model` was promised there: others were quicker."""
        state = self._scheduler.models[model]
        need = state.footprint.ready_bytes
        if reading is not None and reading.free_bytes < need:
            free = f"{reading.free_bytes / _MIB:.0f} of {reading.total_bytes / _MIB:.0f} MiB are free on {state.device}"
            raise OutOfMemory(f"{model} needs {need / _MIB:.0f} MiB, and {free}", hint="audioctl status")

    async def taken_bytes(self, model: str, before: Reading | None, pid: int) -> int:
        """What a worker that has loaded holds on its device; 0 where that cannot be told."""
        try:
            after = await self._meter(self._scheduler.models[model].device).read([pid])
        except DeviceUnreadable:
            return 0
        return taken_bytes(before or after, after, [pid])

    async def reclaim(self, model: str, pids: set[int], stop: Awaitable[int]) -> int:
        """Await `stop`, which ends the processes, and the return of their memory; the bytes that are not back."""
        state = self._scheduler.models[model]
        self._watched.pop(model, None)
        held_bytes = state.rest_bytes if state.on_device else 0
        if not held_bytes or state.device == CPU:  # with the processes gone, the host has its memory back
            return await stop
        meter = self._meter(state.device)
        before = None
        with contextlib.suppress(DeviceUnreadable):
            before = await meter.read(pids)
        left_bytes = await stop
        return max(left_bytes, await reclaimed(meter, before, pids, held_bytes, _RECLAIM_TIMEOUT_S))

    # --- workers --------------------------------------------------------------------------------------------------

    def begin(self, model: str, worker: Worker) -> None:
        """The model has a new worker."""
        self._watched[model] = _Watched(worker)

    def served(self, model: str, worker: Worker, size: float) -> None:
        """A request of `size` is done: now and then, while the worker serves nobody else, look at what it held."""
        state = self._scheduler.models.get(model)
        watched = self._watched.get(model)
        if state is None or watched is None or watched.worker is not worker:
            return
        self.on_learnt(state)
        watched.largest_size = max(watched.largest_size, size)
        recently = asyncio.get_running_loop().time() - watched.measured_at < _WORKER_EVERY_S
        if state.leases or watched.measuring or (recently and not state.footprint.is_new(watched.largest_size)):
            return
        watched.measuring = True
        self._tasks.start(self._measure(state, watched), f"{model}: measure")

    async def _measure(self, state: ModelState, watched: _Watched) -> None:
        meter, pid = self._meter(state.device), watched.worker.pid
        requests, size = state.growth.requests, watched.largest_size
        try:
            use = await meter.measure_worker(pid)
            await meter.reset_peak(pid)
        except DeviceUnreadable:
            return
        finally:
            watched.measuring = False
        if use is None or self._watched.get(state.model) is not watched:
            return
        if state.leases or state.growth.requests != requests:
            return  # it was at work again while it was looked at
        watched.largest_size = 0.0
        watched.measured_at = asyncio.get_running_loop().time()
        self._feed(WorkerMeasured(state.model, use.resting_bytes, use.peak_bytes, size))
        self.on_learnt(state)
