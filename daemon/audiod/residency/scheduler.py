"""Owns all residency state: `handle(event, now) -> instructions`, and nothing else changes it.

Pure: no I/O, no clock, no asyncio, no logging. A function without `await` is the lock. After every event the state
is settled: what can be granted is granted, what can move moves, and `next_wakeup` says when time alone changes
something.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from audiod.residency import policy
from audiod.residency.admission import Admission
from audiod.residency.events import (
    Cancelled,
    DeviceMeasured,
    DrainAsked,
    DrainEnded,
    Event,
    Finish,
    Instruction,
    Limits,
    LoadAsked,
    LoadFailed,
    ParkAsked,
    Profile,
    Reconfigured,
    Reject,
    Released,
    Requested,
    StartFailed,
    TimePassed,
    UnloadAsked,
    WorkerDied,
    WorkerLoaded,
    WorkerMeasured,
    WorkerStopped,
    Yielded,
    ZygoteDied,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.lifecycle import Lifecycle
from audiod.residency.machine import HAS_ZYGOTE, ModelState
from audiod.residency.placement import Placement
from audiod.residency.queue import Waiter
from audiod.residency.serving import Serving
from audiod.residency.step import Step
from audioproto.errors import (
    AudiodError,
    BadRequest,
    Draining,
    ModelNotFound,
    QueueFull,
    QueueTimeout,
)
from audioproto.types import Residency as S

_UNKNOWN_LOAD_S = 5.0
"""Assumed load time for Retry-After before a model has ever been loaded."""


def _no_such_model(model: str) -> ModelNotFound:
    return ModelNotFound(f"there is no model {model!r}", hint="audioctl models")


class Scheduler:
    """All models' states, the queues and the leases. Read them freely; change them through `handle` only."""

    def __init__(self, profiles: Iterable[Profile], limits: Limits) -> None:
        self.models = {profile.model: ModelState.of(profile) for profile in profiles}
        self.draining = False
        self.next_wakeup = math.inf
        self.placement = Placement(self.models, limits, {})
        self._step = Step()
        self._serving = Serving(self._step, self.placement)
        self._admission = Admission(self._step, self.models, self.placement, self._serving)
        self._lifecycle = Lifecycle(self._step, self.placement, self._serving, self._admission)
        self._memory_changed = False
        self._drain_operations: list[int] = []
        self._deadlines: list[tuple[float, int]] = []  # heap; entries of requests no longer waiting are skipped

    @property
    def limits(self) -> Limits:
        return self.placement.limits

    @property
    def queue_length(self) -> int:
        return sum(len(state.queue) for state in self.models.values())

    def estimate_wait_s(self, model: str, ahead: int | None = None) -> float:
        """Seconds until a request for `model` would be served that has `ahead` others before it; None: a new one.

        From what loads and leases took so far: a guess, between 1 and 600, for people and for Retry-After.
        """
        state = self.models[model]
        ahead = len(state.queue) if ahead is None else ahead
        work_s = ahead * state.footprint.service_s + sum(
            max(0.0, state.footprint.work_s(lease.size) - (self._step.now - lease.granted_at))
            for lease in state.leases.values()
        )
        wait_s = work_s / state.profile.concurrency
        if state.state is not S.READY:
            wait_s += state.footprint.load_s or _UNKNOWN_LOAD_S
            if state.state not in HAS_ZYGOTE or state.state is S.STARTING:
                wait_s += state.footprint.start_s
            neighbours = [m for m in self.models.values() if m is not state and m.device == state.device and m.leases]
            work_of_others_s = max((m.footprint.service_s * (len(m.queue) + 1) for m in neighbours), default=0.0)
            wait_s += min(self.limits.max_switch_wait_s, work_of_others_s)
        return max(1.0, min(600.0, wait_s))

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in one event and return what to do about it, in order."""
        self._step.begin(now)
        self._touch(event)
        self._apply(event)
        self._settle()
        return self._step.out

    def _touch(self, event: Event) -> None:
        """Note whom the event may give something to do; those of requests are noted where they are looked up."""
        match event:
            case TimePassed():
                due = (state.model for state in self.models.values() if state.wakes_at <= self._step.now)
                self._step.touched.update(dict.fromkeys(due))
            case Reconfigured():
                self._step.touched.update(dict.fromkeys(self.models))
            case Requested(model=model) | LoadAsked(model=model) | ParkAsked(model=model) | UnloadAsked(model=model):
                self._step.touched[model] = None

    # --- events -------------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        match event:
            case Requested():
                self._requested(event)
            case Cancelled(request):
                if (model := self._step.model_of.get(request)) and request in self.models[model].queue:
                    self.models[model].queue.remove(request)
                    del self._step.model_of[request]
                    self._step.touched[model] = None
            case Released(request):
                if (holder := self._holder(request)) is not None:
                    self._released(holder, event)
            case Yielded(request):
                if (holder := self._holder(request)) is not None:
                    self._serving.yielded(holder, request)
            case LoadAsked() | ParkAsked() | UnloadAsked():
                self._operation(event)
            case DrainAsked(operation):
                self.draining = True
                self._drain_operations.append(operation)
            case DrainEnded():
                self.draining = False
                self._step.finish(self._drain_operations, BadRequest("draining was ended before all work was done"))
            case ZygoteStarted(model, host_bytes):
                state = self.models[model]
                if state.state is S.STARTING:
                    state.footprint.parked_bytes = host_bytes or state.footprint.parked_bytes
                    state.footprint.start_s = self._step.now - state.since
                    state.idle_since = self._step.now
                    self._step.move(state, S.PARKED, "zygote started")
            case WorkerLoaded(model, device_bytes):
                self._lifecycle.loaded(self.models[model], device_bytes)
                self._memory_changed = True
            case WorkerMeasured():
                self._lifecycle.measured(self.models[event.model], event)
                self._memory_changed = True
            case DeviceMeasured():
                self._admission.measured(event)
                self._memory_changed = True
            case WorkerStopped(model, _):
                state = self.models[model]
                self._memory_changed = True
                if state.state is S.PARKING:
                    state.idle_since = self._step.now
                    self._step.move(state, S.PARKED, state.reason)
            case ZygoteStopped(model, _):
                state = self.models[model]
                if state.state is S.STOPPING:
                    self._step.move(state, S.FAILED if state.failure else S.UNLOADED, state.reason)
            case StartFailed(model, error):
                self._lifecycle.failed(self.models[model], error, S.FAILED)
            case LoadFailed(model, error):
                self._lifecycle.load_failed(self.models[model], error)
            case WorkerDied(model, reason, death):
                self._lifecycle.died(self.models[model], reason, death, S.PARKED)
            case ZygoteDied(model, reason, death):
                self._lifecycle.died(self.models[model], reason, death, S.UNLOADED)
            case Reconfigured():
                self._reconfigured(event)
            case TimePassed():
                pass  # settling is all that it asks for

    def _requested(self, event: Requested) -> None:
        refusal = self._refusal(event.model)
        if refusal is not None:
            self._step.out.append(Reject(event.request, refusal))
            return
        state = self.models[event.model]
        work_s = state.footprint.work_s(event.demand.size)
        rank = policy.rank(self._step.now, event.demand, work_s, self.limits)
        state.queue.add(Waiter(event.request, rank, self._step.now, event.deadline, event.demand))
        self._step.model_of[event.request] = event.model
        heapq.heappush(self._deadlines, (event.deadline, event.request))

    def _refusal(self, model: str) -> AudiodError | None:
        """Why a request for `model` is not even queued, if so."""
        state = self.models.get(model)
        if state is None or state.removed:
            return _no_such_model(model)
        if self.draining:
            return Draining("audiod is draining and takes no new work", hint="audioctl undrain", retry_after_s=30)
        if (too_large := self.placement.never_fits(state)) is not None:
            return too_large
        if state.failure is not None and self._step.now < state.retry_at:
            return self._lifecycle.failure_answer(state, state.failure)
        if (state.queue or not self._serving.has_place(state)) and self.queue_length >= self.limits.queue_requests:
            wait_s = self.estimate_wait_s(model)
            return QueueFull(
                f"{self.limits.queue_requests} requests are waiting, which is the limit; {len(state.queue)} of them "
                f"for {model}, which would take about {wait_s:.0f} s",
                retry_after_s=math.ceil(wait_s),
                position=len(state.queue) + 1,
            )
        return None

    def _holder(self, request: int) -> ModelState | None:
        """The model that the request holds a lease of; None where its worker died first, which ended the lease."""
        model = self._step.model_of.get(request)
        if model is None or request not in self.models[model].leases:
            return None
        self._step.touched[model] = None
        return self.models[model]

    def _released(self, state: ModelState, event: Released) -> None:
        if event.out_of_memory:
            self._lifecycle.ran_out(state, state.leases[event.request])
        self._serving.released(state, event)
        del self._step.model_of[event.request]

    def _operation(self, event: LoadAsked | ParkAsked | UnloadAsked) -> None:
        state = self.models.get(event.model)
        if state is None:
            self._step.out.append(Finish(event.operation, _no_such_model(event.model)))
            return
        superseded = BadRequest(f"another operation on {event.model} came after this one")
        if isinstance(event, LoadAsked):
            if (too_large := self.placement.never_fits(state)) is not None:
                self._step.out.append(Finish(event.operation, too_large))
                return
            self._step.finish(state.park_operations, superseded)
            self._step.finish(state.unload_operations, superseded)
            state.target = None
            state.retry_at = self._step.now
            if not state.load_operations:
                state.load_asked_at = self._step.now
            state.load_operations.append(event.operation)
            return
        self._step.finish(state.load_operations, superseded)
        if isinstance(event, ParkAsked):
            self._step.finish(state.unload_operations, superseded)
            state.park_operations.append(event.operation)
            state.target = S.PARKED
            state.retry_at = self._step.now
            return
        self._step.finish(state.park_operations, superseded)
        state.unload_operations.append(event.operation)
        state.target = S.UNLOADED
        if event.force and state.state in (S.READY, S.DRAINING):
            self._step.void_leases(state)

    def _reconfigured(self, event: Reconfigured) -> None:
        self.placement.limits = event.limits
        wanted = {profile.model: profile for profile in event.profiles}
        for state in self.models.values():
            state.removed = state.model not in wanted
            if state.removed:
                state.target = S.UNLOADED
                self._step.give_up(state, _no_such_model(state.model))
        for model, profile in wanted.items():
            if model not in self.models:
                self.models[model] = ModelState.of(profile)
                continue
            state = self.models[model]
            if profile.staged_bytes != state.profile.staged_bytes:
                if state.on_device:  # until it has left
                    state.rest_bytes = max(state.rest_bytes, state.footprint.ready_bytes)
                state.footprint = profile.footprint.copy()  # what it took so far tells nothing
                state.outdated = state.state in HAS_ZYGOTE
            state.profile = profile

    # --- settling -----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Do whatever the state now calls for, until it calls for nothing."""
        deadline = self._expire_waiters()
        while True:
            self._advance_touched()
            self._step.wakes_at = math.inf
            if not self._admission.admit() and not self._step.touched:
                break
        self.next_wakeup = min(
            deadline, self._step.wakes_at, min((state.wakes_at for state in self.models.values()), default=math.inf)
        )
        if self._memory_changed:
            self._memory_changed = self._admission.relieve()
        if self.draining and not any(m.queue or m.leases for m in self.models.values()):
            self._step.finish(self._drain_operations)

    def _advance_touched(self) -> None:
        # Whether a model that drains for another still has to depends on that other one.
        self._step.touched.update({m.model: None for m in self.models.values() if m.state is S.DRAINING})
        while self._step.touched:
            model = next(iter(self._step.touched))
            del self._step.touched[model]
            if (state := self.models.get(model)) is None:
                continue
            self._step.wakes_at = math.inf
            if self._lifecycle.advance(state):
                self._step.touched[model] = None
            state.wakes_at = self._step.wakes_at
            if state.removed and state.state is S.UNLOADED and state.target is None:
                del self.models[model]

    def _expire_waiters(self) -> float:
        """Reject who has waited for too long. When the next one will have."""
        while self._deadlines:
            deadline, request = self._deadlines[0]
            model = self._step.model_of.get(request)
            waiting = model is not None and request in self.models[model].queue
            if waiting and deadline > self._step.now:
                return deadline
            heapq.heappop(self._deadlines)
            if waiting and model is not None:
                self._timed_out(self.models[model], request)
        return math.inf

    def _timed_out(self, state: ModelState, request: int) -> None:
        waiter = state.queue.remove(request)
        ahead = state.queue.ahead_of(waiter)
        wait_s = self.estimate_wait_s(state.model, ahead)
        place = f"it was number {ahead + 1} in the queue, with about {wait_s:.0f} s to go"
        message = f"{state.model} was not free within {self._step.now - waiter.came_at:.0f} s; {place}"
        self._step.touched[state.model] = None
        self._step.reject(request, QueueTimeout(message, retry_after_s=math.ceil(wait_s), position=ahead + 1))
