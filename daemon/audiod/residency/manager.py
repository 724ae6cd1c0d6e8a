"""Carries the scheduler's instructions out, and feeds what happened back as events. The only async file here.

It decides nothing: who runs, waits or goes is `scheduler.py`'s answer to the event. Everyone who wants a model goes
through `lease`; the state is changed in `_feed` and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from audiod.meters import Meter
from audiod.residency.events import (
    Announce,
    Cancelled,
    Demand,
    DrainAsked,
    DrainEnded,
    Event,
    Finish,
    ForkWorker,
    Grant,
    Instruction,
    Limits,
    LoadAsked,
    LoadFailed,
    MeasureDevice,
    ParkAsked,
    Pause,
    Profile,
    Reconfigured,
    Reject,
    Released,
    Report,
    Requested,
    Resume,
    StartFailed,
    StartZygote,
    StopWorker,
    StopZygote,
    TimePassed,
    UnloadAsked,
    WorkerDied,
    WorkerLoaded,
    WorkerStopped,
    Yielded,
    ZygoteDied,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.measuring import Measuring
from audiod.residency.scheduler import Scheduler
from audiod.supervisor import memory
from audiod.supervisor.worker import Ending, Job, Worker
from audiod.supervisor.zygote import Launch, Zygote
from audiod.tasks import Tasks
from audioproto.control import Event as Happening
from audioproto.errors import AudiodError, Draining, OutOfMemory
from audioproto.errors import WorkerDied as WorkerDiedError
from audioproto.types import Death, Residency
from audioproto.worker import Align, Synthesize, Transcribe

logger = logging.getLogger(__name__)

EVENTS_KEPT = 256
"""Events that a slow listener may lag behind before it loses the oldest."""


_OVERDUE_S = 10.0
"""A timer so late was lost; a busy event loop is late by milliseconds."""


class Lease:
    """The right to use a model's ready worker for one request. `on_yielded` is called when its work stands still."""

    def __init__(self, worker: Worker, on_yielded: Callable[[], None]) -> None:
        self.worker = worker
        self._on_yielded = on_yielded
        self._job: Job | None = None
        self._pausing = False

    @asynccontextmanager
    async def run(self, work: Transcribe | Align | Synthesize, descriptor: int | None = None) -> AsyncIterator[Job]:
        """Send the work and yield its messages, as Worker.run does. Once."""
        async with self.worker.run(work, descriptor, self._on_yielded) as self._job:
            if self._pausing:  # it was told before there was anything to pause
                self._job.pause()
            yield self._job

    def pause(self) -> None:
        self._pausing = True
        if self._job is not None:
            self._job.pause()

    def resume(self) -> None:
        self._pausing = False
        if self._job is not None:
            self._job.resume()


@dataclass(slots=True)
class Processes:
    """What runs for one model, and the one operation under way on it."""

    zygote: Zygote | None = None
    worker: Worker | None = None
    operation: asyncio.Task[None] | None = None
    last_log: list[str] = field(default_factory=list)


class ResidencyManager:
    """The residency of all models. Use as an async context manager: leaving it stops every process.

    `launch` tells how to start a model, in a thread because it may read the disk; it raises AudiodError where that is
    impossible (not installed, say). `meter` gives the meter of a device.
    """

    def __init__(
        self,
        profiles: Iterable[Profile],
        limits: Limits,
        launch: Callable[[str], Launch],
        meter: Callable[[str], Meter],
        start_timeout_s: float,
        abort_grace_s: float,
    ) -> None:
        self.scheduler = Scheduler(profiles, limits)
        self.processes: dict[str, Processes] = {}
        self.on_step: Callable[[Event, Sequence[Instruction], float], None] = lambda event, instructions, now: None
        """Told of every event, of what is done about it, and when; for metrics."""
        self.measuring = Measuring(self.scheduler, meter, self._feed)
        self._launch = launch
        self._start_timeout_s = start_timeout_s
        self._abort_grace_s = abort_grace_s
        self._numbers = itertools.count(1)
        self._leases: dict[int, Lease] = {}
        self._grants: dict[int, asyncio.Future[Worker]] = {}
        self._operations: dict[int, asyncio.Future[None]] = {}
        self._listeners: set[asyncio.Queue[Happening]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._broken = False
        self._closed = False
        self._tasks = Tasks()
        self._watchers = Tasks()

    async def __aenter__(self) -> ResidencyManager:
        await self._watchers.__aenter__()
        await self._tasks.__aenter__()
        await self.measuring.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self.measuring.__aexit__()
        async with asyncio.TaskGroup() as stops:
            for processes in self.processes.values():
                if processes.zygote is not None:
                    stops.create_task(processes.zygote.stop())
        await self._watchers.__aexit__(None, None, None)

    # --- what others call -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, model: str, timeout_s: float, demand: Demand) -> AsyncIterator[Lease]:
        """The right to use `model`'s ready worker while inside, waiting for it for at most `timeout_s`.

        Raises ModelNotFound, ModelTooLarge, OutOfMemory, QueueFull, QueueTimeout, Draining, ModelFailed.
        """
        if self._closed:
            raise Draining("audiod is stopping", retry_after_s=5)
        request = next(self._numbers)
        granted = self._grants[request] = asyncio.get_running_loop().create_future()
        self._feed(Requested(request, model, self._now() + timeout_s, demand))
        try:
            worker = await granted
        except BaseException:
            del self._grants[request]
            # The grant may have come in the same moment as the cancellation: then there is a lease to give back.
            self._feed(Cancelled(request))
            self._feed(Released(request, abandoned=True))
            raise
        del self._grants[request]
        abandoned = out_of_memory = False
        lease = self._leases[request] = Lease(worker, lambda: self._feed(Yielded(request)))
        try:
            yield lease
        except (asyncio.CancelledError, ConnectionError):  # how it shows that the client has left
            abandoned = True
            raise
        except OutOfMemory:
            out_of_memory = True
            raise
        except WorkerDiedError as error:
            if worker.dead.done() and worker.dead.result().death is Death.OUT_OF_MEMORY:
                raise OutOfMemory(f"{model} was stopped during the request, because memory had run out") from error
            raise
        finally:
            del self._leases[request]
            self._feed(Released(request, abandoned, out_of_memory))
            self.measuring.served(model, worker, demand.size)

    async def load(self, model: str) -> None:
        """Bring `model` to ready; returns when it is. Raises what stopped it."""
        await self._operate(lambda number: LoadAsked(number, model))

    async def warm(self, model: str, timeout_s: float) -> None:
        """Have the model do once what its first request would otherwise pay for. Raises as `lease`, or EngineFailed."""
        async with self.lease(model, timeout_s, Demand()) as lease:
            await lease.worker.warm()

    async def park(self, model: str) -> None:
        await self._operate(lambda number: ParkAsked(number, model))

    async def unload(self, model: str, *, force: bool = False) -> None:
        await self._operate(lambda number: UnloadAsked(number, model, force))

    async def drain(self) -> None:
        """Admit no new work; returns when all that was admitted is done."""
        self.publish("drain", "draining: no new work is admitted")
        await self._operate(DrainAsked)

    def undrain(self) -> None:
        self._feed(DrainEnded())
        self.publish("drain", "drain ended: new work is admitted")

    def reconfigure(self, profiles: Iterable[Profile], limits: Limits) -> None:
        self._feed(Reconfigured(tuple(profiles), limits))

    def beginning_anew(self) -> list[str]:
        """Models on a device whose processes end for what was reconfigured; none comes back before it is asked for."""
        return [state.model for state in self.scheduler.models.values() if state.outdated and state.on_device]

    @contextlib.contextmanager
    def listen(self) -> Iterator[asyncio.Queue[Happening]]:
        """A queue of all that happens while inside."""
        queue: asyncio.Queue[Happening] = asyncio.Queue(EVENTS_KEPT)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def publish(self, kind: str, message: str, model: str = "") -> None:
        """Tell all listeners of something that is not a transition."""
        self._publish(Happening(time.time(), kind, message, model))

    @property
    def alive(self) -> bool:
        """Whether requests are still being decided: no event broke off half-way, and what was due has happened."""
        return not self._broken and self.scheduler.next_wakeup > self._now() - _OVERDUE_S

    def now(self) -> float:
        """The clock that all times in the scheduler are of."""
        return self._now()

    # --- events in, instructions out ------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _operate(self, event: Callable[[int], Event]) -> None:
        number = next(self._numbers)
        done = self._operations[number] = asyncio.get_running_loop().create_future()
        self._feed(event(number))
        try:
            await done
        finally:
            del self._operations[number]

    def _feed(self, event: Event) -> None:
        if self._closed:  # every process is being ended, whatever happens to it
            return
        self._broken = True
        now = self._now()
        instructions = self.scheduler.handle(event, now)
        self.on_step(event, instructions, now)
        for instruction in instructions:
            self._execute(instruction)
        self._broken = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.scheduler.next_wakeup < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self.scheduler.next_wakeup, self._feed, TimePassed())

    def _execute(self, instruction: Instruction) -> None:
        match instruction:
            case StartZygote(model):
                self._begin(model, self._start_zygote(model))
            case ForkWorker(model):
                self._begin(model, self._fork_worker(model))
            case StopWorker(model):
                self._begin(model, self._stop_worker(model))
            case StopZygote(model):
                self._begin(model, self._stop_zygote(model, self._of(model).operation))
            case Grant(request, model):
                worker = self._of(model).worker
                assert worker is not None
                if (granted := self._grants.get(request)) is not None and not granted.done():
                    granted.set_result(worker)
            case Reject(request, error):
                if (granted := self._grants.get(request)) is not None and not granted.done():
                    granted.set_exception(error)
            case Finish(operation, error):
                if (done := self._operations.get(operation)) is not None and not done.done():
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)
            case MeasureDevice(device):
                self._tasks.start(self._measure(device), f"{device}: measure")
            case Pause(request):
                if (lease := self._leases.get(request)) is not None:
                    lease.pause()
            case Resume(request):
                if (lease := self._leases.get(request)) is not None:
                    lease.resume()
            case Announce():
                self._announce(instruction)
            case Report(kind, message, model):
                logger.warning("%s", message, extra={"model": model})
                self.publish(kind, message, model)

    def _announce(self, announce: Announce) -> None:
        level = logging.ERROR if announce.state is Residency.FAILED else logging.INFO
        logger.log(
            level,
            "%s: %s -> %s (%s)",
            announce.model,
            announce.previous,
            announce.state,
            announce.reason,
            extra={"model": announce.model},
        )
        self._publish(
            Happening(time.time(), "state", announce.reason, announce.model, announce.state, announce.previous)
        )

    def _publish(self, happening: Happening) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(happening)

    # --- operations on processes; each ends by feeding exactly one event, unless it is cancelled --------------------

    def _of(self, model: str) -> Processes:
        return self.processes.setdefault(model, Processes())

    def _begin(self, model: str, work: Coroutine[Any, Any, None]) -> None:
        self._of(model).operation = self._tasks.start(work, f"{model}: operation")

    async def _start_zygote(self, model: str) -> None:
        processes = self._of(model)
        seen: list[Zygote] = []

        def watch(zygote: Zygote) -> None:
            seen.append(zygote)
            self._watchers.start(zygote.watch(), f"{model}: watch")

        try:
            launch = await asyncio.to_thread(self._launch, model)
            zygote = await Zygote.start(launch, watch, self._start_timeout_s)
        except AudiodError as error:
            processes.last_log = [line for zygote in seen for line in zygote.log]
            self._feed(StartFailed(model, error))
            return
        processes.zygote = zygote
        zygote.on_death = lambda ending: self._zygote_died(model, zygote, ending)
        self._feed(ZygoteStarted(model, await memory.proportional_bytes(zygote.pid)))

    async def _measure(self, device: str) -> None:
        await self.measuring.look(device)

    async def _fork_worker(self, model: str) -> None:
        processes = self._of(model)
        zygote = processes.zygote
        assert zygote is not None
        before = await self.measuring.look(self.scheduler.models[model].device)
        try:
            self.measuring.require(model, before)
            worker = await zygote.fork(
                lambda ending: self._worker_died(model, ending), self._start_timeout_s, self._abort_grace_s
            )
        except AudiodError as error:
            processes.last_log = list(zygote.log)
            if processes.zygote is zygote:
                self._feed(LoadFailed(model, error))
            return  # where the zygote died too, its own end is the event
        processes.worker = worker
        self.measuring.begin(model, worker)
        self._feed(WorkerLoaded(model, await self.measuring.taken_bytes(model, before, worker.pid)))

    async def _stop_worker(self, model: str) -> None:
        processes = self._of(model)
        residue_bytes = 0
        if (worker := processes.worker) is not None:
            processes.worker = None
            residue_bytes = await self.measuring.reclaim(model, {worker.pid}, worker.stop())
        self._reclaimed(model, residue_bytes)
        self._feed(WorkerStopped(model, residue_bytes))
        if processes.zygote is None:
            self._feed(ZygoteDied(model, "its zygote ended while it was being parked", Death.CRASHED))

    async def _stop_zygote(self, model: str, before: asyncio.Task[None] | None) -> None:
        processes = self._of(model)
        if before is not None and not before.done():
            before.cancel()
            await asyncio.wait([before])
        pids = {process.pid for process in (processes.worker, processes.zygote) if process is not None}
        processes.worker = None
        residue_bytes = 0
        if processes.zygote is not None:
            residue_bytes = await self.measuring.reclaim(model, pids, processes.zygote.stop())
            processes.zygote = None
        self._reclaimed(model, residue_bytes)
        self._feed(ZygoteStopped(model, residue_bytes))

    def _reclaimed(self, model: str, residue_bytes: int) -> None:
        if residue_bytes:
            mib = residue_bytes / 2**20
            logger.error("%s: %.0f MiB are still held by processes that do not end", model, mib, extra={"model": model})

    def _worker_died(self, model: str, ending: Ending) -> None:
        processes = self._of(model)
        processes.worker = None
        processes.last_log = list(processes.zygote.log) if processes.zygote else []
        reason = f"the worker {ending.words}"
        self.publish("worker_died", reason, model)
        self._feed(WorkerDied(model, reason, ending.death))

    def _zygote_died(self, model: str, zygote: Zygote, ending: Ending) -> None:
        processes = self._of(model)
        if processes.zygote is not zygote:
            return
        processes.zygote = None
        processes.worker = None
        processes.last_log = list(zygote.log)
        reason = f"the zygote {ending.words}"
        self.publish("worker_died", reason, model)
        parking = self.scheduler.models[model].state is Residency.PARKING
        if not parking:  # else the operation that is parking it says so when it is done
            self._feed(ZygoteDied(model, reason, ending.death))
