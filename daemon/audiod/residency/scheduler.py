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
from audiod.residency.budget import Measured
from audiod.residency.events import (
    HOST,
    Announce,
    Cancelled,
    Cause,
    DeviceMeasured,
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
    WorkerMeasured,
    WorkerStopped,
    Yielded,
    ZygoteDied,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.growth import Growth
from audiod.residency.machine import Lease, ModelState
from audiod.residency.placement import Placement
from audiod.residency.queue import Waiter
from audioproto.errors import (
    AudiodError,
    BadRequest,
    Draining,
    ModelFailed,
    ModelNotFound,
    OutOfMemory,
    QueueFull,
    QueueTimeout,
)
from audioproto.types import Residency as S

_UNKNOWN_LOAD_S = 5.0
"""Assumed load time for Retry-After before a model has ever been loaded."""

_FRESH_S = 1.0
"""What a device was measured to hold longer ago is measured again before anybody is evicted or refused for it."""


def _no_such_model(model: str) -> ModelNotFound:
    return ModelNotFound(f"there is no model {model!r}", hint="audioctl models")


class Scheduler:
    """All models' states, the queues and the leases. Read them freely; change them through `handle` only."""

    def __init__(self, profiles: Iterable[Profile], limits: Limits) -> None:
        self.models = {profile.model: ModelState.of(profile) for profile in profiles}
        self.placement = Placement(self.models, limits, {})
        self.draining = False
        self.next_wakeup = math.inf
        self._drain_operations: list[int] = []
        self._model_of: dict[int, str] = {}  # every request that waits or holds a lease
        self._deadlines: list[tuple[float, int]] = []  # heap; entries of requests no longer waiting are skipped
        self._measured_at: dict[str, float] = {}
        self._measuring: set[str] = set()
        self._now = 0.0
        self._out: list[Instruction] = []

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
            max(0.0, state.footprint.work_s(lease.size) - (self._now - lease.granted_at))
            for lease in state.leases.values()
        )
        wait_s = work_s / state.profile.concurrency
        if state.state is not S.READY:
            wait_s += state.footprint.load_s or _UNKNOWN_LOAD_S
            neighbours = [m for m in self.models.values() if m is not state and m.device == state.device and m.leases]
            work_of_others_s = max((m.footprint.service_s * (len(m.queue) + 1) for m in neighbours), default=0.0)
            wait_s += min(self.limits.max_switch_wait_s, work_of_others_s)
        return max(1.0, min(600.0, wait_s))

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take in one event and return what to do about it, in order."""
        self._now = now
        self._out = []
        self._apply(event)
        self._settle()
        return self._out

    # --- events -------------------------------------------------------------------------------------------------

    def _apply(self, event: Event) -> None:
        match event:
            case Requested():
                self._requested(event)
            case Cancelled(request):
                if (model := self._model_of.get(request)) and request in self.models[model].queue:
                    self.models[model].queue.remove(request)
                    del self._model_of[request]
            case Released():
                self._released(event)
            case Yielded(request):
                self._yielded(request)
            case LoadAsked() | ParkAsked() | UnloadAsked():
                self._operation(event)
            case DrainAsked(operation):
                self.draining = True
                self._drain_operations.append(operation)
            case DrainEnded():
                self.draining = False
                self._finish(self._drain_operations, BadRequest("draining was ended before all work was done"))
            case ZygoteStarted(model, host_bytes):
                state = self.models[model]
                if state.state is S.STARTING:
                    state.footprint.parked_bytes = host_bytes or state.footprint.parked_bytes
                    state.idle_since = self._now
                    self._move(state, S.PARKED, "zygote started")
            case WorkerLoaded(model, device_bytes):
                self._worker_loaded(self.models[model], device_bytes)
            case WorkerMeasured():
                self._worker_measured(event)
            case DeviceMeasured(device, total_bytes, others_bytes):
                self._measuring.discard(device)
                self._measured_at[device] = self._now
                self.placement.measured.pop(device, None)
                if total_bytes:
                    self.placement.measured[device] = Measured(total_bytes, others_bytes)
            case WorkerStopped(model, _):
                state = self.models[model]
                if state.state is S.PARKING:
                    state.idle_since = self._now
                    self._move(state, S.PARKED, state.reason)
            case ZygoteStopped(model, _):
                state = self.models[model]
                if state.state is S.STOPPING:
                    self._move(state, S.FAILED if state.failure else S.UNLOADED, state.reason)
            case StartFailed(model, error):
                self._failed(self.models[model], error, S.FAILED)
            case LoadFailed(model, error):
                self._load_failed(self.models[model], error)
            case WorkerDied(model, reason, _):
                self._died(self.models[model], reason, S.PARKED)
            case ZygoteDied(model, reason, _):
                self._died(self.models[model], reason, S.UNLOADED)
            case Reconfigured():
                self._reconfigured(event)
            case TimePassed():
                pass  # settling is all that it asks for

    def _requested(self, event: Requested) -> None:
        refusal = self._refusal(event.model)
        if refusal is not None:
            self._out.append(Reject(event.request, refusal))
            return
        state = self.models[event.model]
        work_s = state.footprint.work_s(event.demand.size)
        rank = policy.rank(self._now, event.demand, work_s, self.limits)
        state.queue.add(Waiter(event.request, rank, self._now, event.deadline, event.demand))
        self._model_of[event.request] = event.model
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
        if state.failure is not None and self._now < state.retry_at:
            return self._failure_answer(state, state.failure)
        if (state.queue or not self._may_serve(state)) and self.queue_length >= self.limits.queue_requests:
            wait_s = self.estimate_wait_s(model)
            return QueueFull(
                f"{self.limits.queue_requests} requests are waiting, which is the limit; {len(state.queue)} of them "
                f"for {model}, which would take about {wait_s:.0f} s",
                retry_after_s=math.ceil(wait_s),
                position=len(state.queue) + 1,
            )
        return None

    def _released(self, event: Released) -> None:
        model = self._model_of.get(event.request)
        if model is None or event.request not in self.models[model].leases:
            return  # its worker died first, which ended the lease
        del self._model_of[event.request]
        state = self.models[model]
        if event.out_of_memory:
            self._ran_out_at_work(state, state.leases[event.request])
        lease = state.leases.pop(event.request)
        if not event.abandoned and not event.out_of_memory:
            standing_s = 0.0 if lease.paused_at is None else self._now - lease.paused_at
            lasted_s = self._now - lease.granted_at - lease.paused_s - standing_s
            state.footprint.learn_service(lease.size, lasted_s)
        state.crashes = 0
        state.growth.count()
        state.last_demand = lease.waiter.demand
        if not state.leases:
            state.idle_since = self._now

    def _yielded(self, request: int) -> None:
        model = self._model_of.get(request)
        lease = self.models[model].leases.get(request) if model else None
        if lease is not None and lease.pausing:
            lease.pausing = False
            lease.paused_at = self._now

    def _operation(self, event: LoadAsked | ParkAsked | UnloadAsked) -> None:
        state = self.models.get(event.model)
        if state is None:
            self._out.append(Finish(event.operation, _no_such_model(event.model)))
            return
        superseded = BadRequest(f"another operation on {event.model} came after this one")
        if isinstance(event, LoadAsked):
            if (too_large := self.placement.never_fits(state)) is not None:
                self._out.append(Finish(event.operation, too_large))
                return
            self._finish(state.park_operations, superseded)
            self._finish(state.unload_operations, superseded)
            state.target = None
            state.retry_at = self._now
            if not state.load_operations:
                state.load_asked_at = self._now
            state.load_operations.append(event.operation)
            return
        self._finish(state.load_operations, superseded)
        if isinstance(event, ParkAsked):
            self._finish(state.unload_operations, superseded)
            state.park_operations.append(event.operation)
            state.target = S.PARKED
            state.retry_at = self._now
            return
        self._finish(state.park_operations, superseded)
        state.unload_operations.append(event.operation)
        state.target = S.UNLOADED
        if event.force and state.state in (S.READY, S.DRAINING):
            self._void_leases(state)

    def _worker_loaded(self, state: ModelState, device_bytes: int) -> None:
        if state.state is not S.LOADING:
            return
        state.footprint.ready_bytes = device_bytes or state.footprint.ready_bytes
        state.footprint.load_s = self._now - state.since
        state.failures = 0
        state.failure = None
        state.ran_out = False
        state.loads += 1
        state.growth = Growth()
        state.idle_since = self._now
        self._move(state, S.READY, "loaded")

    def _worker_measured(self, event: WorkerMeasured) -> None:
        """What a request has shown of the model's appetite; a worker that is going or gone shows nothing."""
        state = self.models[event.model]
        if state.state not in (S.READY, S.DRAINING):
            return
        if event.peak_bytes > event.resting_bytes:
            state.footprint.learn_work(event.size, event.peak_bytes - event.resting_bytes)
        state.footprint.ready_bytes = event.resting_bytes
        if grown := state.growth.measure(event.resting_bytes):
            self._out.append(Report("growth", f"{state.model} {grown}", state.model))

    def _load_failed(self, state: ModelState, error: AudiodError) -> None:
        if state.state is S.LOADING and isinstance(error, OutOfMemory) and not state.ran_out:
            self._make_room(state)
            self._move(state, S.PARKED, error.message, Cause.FAILURE)
        else:
            self._failed(state, error, S.STOPPING)

    def _ran_out_at_work(self, state: ModelState, lease: Lease) -> None:
        """Memory ran out during a request: a second try of it, or one like it, finds all that can be freed."""
        free = self.placement.capacity(state.device) - self.placement.reserved(state.device) + lease.work_bytes
        state.footprint.learn_work(lease.size, max(0, free) + 1)  # it was not enough
        self._make_room(state)

    def _make_room(self, state: ModelState) -> None:
        """Memory ran out where it should have sufficed: send all idle models away before `state` goes on."""
        state.ran_out = True
        for other in self.placement.idle_on(state.device):
            if other is not state:
                reason = f"{state.model} ran out of memory"
                self._leave_device(other, S.PARKED, reason, Cause.PRESSURE)

    def _failed(self, state: ModelState, error: AudiodError, after: S) -> None:
        """A start or load failed. `after` is FAILED where no process is left, STOPPING where the zygote still lives."""
        if state.state not in (S.STARTING, S.LOADING, S.PARKED, S.READY, S.DRAINING):
            return  # it is being stopped, which is what would happen now anyway
        state.failure = error
        state.failures += 1
        state.ran_out = False
        pause_s = min(self.limits.backoff_cap_s, self.limits.backoff_s * 2 ** (state.failures - 1))
        state.retry_at = self._now + pause_s
        self._give_up(state, self._failure_answer(state, error))
        self._move(state, after, error.message, Cause.FAILURE)
        if after is S.STOPPING:
            self._out.append(StopZygote(state.model))

    def _died(self, state: ModelState, reason: str, after: S) -> None:
        """A process is gone, unasked. `after` is PARKED where the zygote lives, else UNLOADED."""
        if state.state in (S.STARTING, S.LOADING):
            self._failed(state, ModelFailed(reason), S.FAILED)
            return
        serving = state.state in (S.READY, S.DRAINING)
        if not (serving or (state.state in (S.PARKED, S.PARKING) and after is S.UNLOADED)):
            return  # it was being stopped, or it is news of a process long gone
        self._void_leases(state)
        state.crashes += 1
        if state.crashes >= self.limits.crash_limit:
            state.crashes = 0
            message = f"{reason}; that was the {self.limits.crash_limit}. time in a row"
            self._failed(state, ModelFailed(message), S.STOPPING if after is S.PARKED else S.FAILED)
            return
        state.idle_since = self._now
        self._move(state, after, reason, Cause.FAILURE)

    def _reconfigured(self, event: Reconfigured) -> None:
        self.placement.limits = event.limits
        wanted = {profile.model: profile for profile in event.profiles}
        for state in self.models.values():
            state.removed = state.model not in wanted
            if state.removed:
                state.target = S.UNLOADED
                self._give_up(state, _no_such_model(state.model))
        for model, profile in wanted.items():
            if model not in self.models:
                self.models[model] = ModelState.of(profile)
            else:
                self.models[model].profile = profile

    # --- settling -----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Do whatever the state now calls for, until it calls for nothing."""
        self.next_wakeup = math.inf
        self._expire_waiters()
        while any([self._advance(state) for state in list(self.models.values())]) or self._admit():
            pass
        for device in self.limits.devices:
            for state in self.placement.excess(device):
                self._leave_device(state, S.PARKED, "more is held than may be", Cause.PRESSURE)
        if self.draining and not any(m.queue or m.leases for m in self.models.values()):
            self._finish(self._drain_operations)

    def _expire_waiters(self) -> None:
        while self._deadlines:
            deadline, request = self._deadlines[0]
            model = self._model_of.get(request)
            waiting = model is not None and request in self.models[model].queue
            if waiting and deadline > self._now:
                self._wake_at(deadline)
                return
            heapq.heappop(self._deadlines)
            if waiting and model is not None:
                self._timed_out(self.models[model], request)

    def _timed_out(self, state: ModelState, request: int) -> None:
        waiter = state.queue.remove(request)
        ahead = state.queue.ahead_of(waiter.rank)
        wait_s = self.estimate_wait_s(state.model, ahead)
        place = f"it was number {ahead + 1} in the queue, with about {wait_s:.0f} s to go"
        message = f"{state.model} was not free within {self._now - waiter.came_at:.0f} s; {place}"
        self._reject(request, QueueTimeout(message, retry_after_s=math.ceil(wait_s), position=ahead + 1))

    def _advance(self, state: ModelState) -> bool:
        """Move one model a step by itself, if its state calls for it. True if anything changed."""
        match state.state:
            case S.READY:
                return self._advance_ready(state)
            case S.DRAINING:
                if state.target is None and not self._still_evicted(state):
                    state.evicted_for, state.evicted_to = "", None
                    self._move(state, S.READY, "the room is no longer needed", Cause.WANTED)
                elif not state.leases:
                    self._leave_device(state, state.target or state.evicted_to or S.PARKED, state.reason, state.cause)
                else:
                    return self._resume(state)
                return True
            case S.PARKED:
                return self._advance_parked(state)
            case S.STARTING | S.LOADING:
                if state.target is not S.UNLOADED:
                    return False
                self._move(state, S.STOPPING, "unload asked", Cause.OPERATOR)
                self._out.append(StopZygote(state.model))
                return True
            case S.UNLOADED | S.FAILED:
                return self._advance_absent(state)
        return False

    def _advance_ready(self, state: ModelState) -> bool:
        if state.target is not None:
            reason = "park asked" if state.target is S.PARKED else "unload asked"
            if state.leases:
                self._move(state, S.DRAINING, reason, Cause.OPERATOR)
            else:
                self._leave_device(state, state.target, reason, Cause.OPERATOR)
            return True
        changed = bool(state.load_operations)
        self._finish(state.load_operations)
        while self._serve_next(state):
            changed = True
        self._interrupt(state)
        if self.limits.recycle and state.growth.outgrown and state.idle:
            self._leave_device(state, S.PARKED, state.growth.story, Cause.GROWTH)
            return True
        if self._idle_for(state, state.keep_alive_s):
            self._leave_device(state, S.PARKED, f"idle for {state.keep_alive_s:g} s", Cause.IDLE)
            return True
        return changed

    def _advance_parked(self, state: ModelState) -> bool:
        if state.target is S.PARKED:
            state.target = None
            self._finish(state.park_operations)
            return True
        asked = state.target is S.UNLOADED
        if asked or self._idle_for(state, state.park_keep_alive_s):
            reason = "unload asked" if asked else f"parked for {state.park_keep_alive_s:g} s"
            self._move(state, S.STOPPING, reason, Cause.OPERATOR if asked else Cause.IDLE)
            self._out.append(StopZygote(state.model))
            return True
        return False

    def _advance_absent(self, state: ModelState) -> bool:
        if state.target is S.UNLOADED:
            state.target = None
            state.failure = None
            state.failures = 0
            self._finish(state.unload_operations)
            if state.state is S.FAILED:
                self._move(state, S.UNLOADED, "unload asked", Cause.OPERATOR)
            if state.removed:
                del self.models[state.model]
            return True
        return False

    # --- serving ------------------------------------------------------------------------------------------------

    def _serve_next(self, state: ModelState) -> bool:
        """Give a free place to the head of the queue or to a paused lease. True if either got it."""
        if not self._may_serve(state):
            return False
        head = state.queue.head
        if head is not None and not self._has_room(state, head):
            head = None  # `_admit` makes room for it
        paused = self._paused(state)
        if paused is not None and paused.paused_at is not None:
            waited_enough = self._now - paused.paused_at >= policy.LONGEST_PAUSE_S
            if head is None or waited_enough or not policy.interrupts(head.demand.size, paused.size):
                return self._resume(state)
        if head is None:
            return False
        state.ran_out = False
        state.queue.remove(head.request)
        work_bytes = self.placement.work_bytes(state, head.demand)
        state.leases[head.request] = Lease(head, self._now, work_bytes, self._now)
        self._out.append(Grant(head.request, state.model))
        return True

    def _has_room(self, state: ModelState, waiter: Waiter) -> bool:
        """Whether a ready model may begin on the request with what memory is free."""
        work_bytes = self.placement.work_bytes(state, waiter.demand)
        if not work_bytes and not state.ran_out:
            return True
        return self.placement.room(state, state.device, work_bytes, self._now).taken

    def _paused(self, state: ModelState) -> Lease | None:
        """The lease that has stood still for longest."""
        paused = (lease for lease in state.leases.values() if lease.paused_at is not None)
        return min(paused, key=lambda lease: lease.paused_at or 0.0, default=None)

    def _resume(self, state: ModelState) -> bool:
        lease = self._paused(state)
        if lease is None or lease.paused_at is None or state.at_work >= state.profile.concurrency:
            return False
        lease.last_pause_s = self._now - lease.paused_at
        lease.paused_s += lease.last_pause_s
        lease.paused_at = None
        lease.resumed_at = self._now
        self._out.append(Resume(lease.request))
        return True

    def _interrupt(self, state: ModelState) -> None:
        """Where a request waits behind jobs that are much longer, pause the longest of them at its next segment.

        One that was interrupted before runs for as long as it stood still, so that it is never starved.
        """
        head = state.queue.head
        if head is None or state.at_work < state.profile.concurrency or any(x.pausing for x in state.leases.values()):
            return
        if not self._has_room(state, head):
            return
        longer = [
            lease
            for lease in state.leases.values()
            if lease.paused_at is None and policy.interrupts(head.demand.size, lease.size)
        ]
        for lease in sorted(longer, key=lambda lease: -lease.size):
            owed_until = lease.resumed_at + lease.last_pause_s
            if self._now >= owed_until:
                lease.pausing = True
                self._out.append(Pause(lease.request))
                return
            self._wake_at(owed_until)

    # --- admission ----------------------------------------------------------------------------------------------

    def _admit(self) -> bool:
        """Start, load or serve what is wanted, lowest rank first, and make room for it. True if anything changed.

        Nobody overtakes the first one that waits for room: a smaller model would take it away for ever.
        """
        for state in self._wanting(S.UNLOADED, S.FAILED):
            if self._room(state, HOST, state.footprint.parked_bytes):
                state.failure = None
                state.device = state.profile.device
                if state.wanted:
                    self._move(state, S.STARTING, "wanted", Cause.WANTED)
                else:
                    self._move(state, S.STARTING, "park asked", Cause.OPERATOR)
                self._out.append(StartZygote(state.model))
                return True
            if self._needs_room(state):  # unless it was found never to fit, and given up
                break
        full: set[str] = set()
        for state in self._wanting(S.PARKED, S.READY):
            if state.device in full:
                continue
            if self._admit_to_device(state):
                return True
            if self._needs_room(state):
                full.add(state.device)
        return False

    def _wanting(self, *states: S) -> list[ModelState]:
        """Models in one of the states that need room to go on, in their order."""
        found = (state for state in self.models.values() if state.state in states and self._needs_room(state))
        return sorted(found, key=lambda state: state.rank if state.wanted else state.since)

    def _needs_room(self, state: ModelState) -> bool:
        """Whether the model cannot go on without memory that it does not have."""
        if state.state is S.READY:
            head = state.queue.head
            if head is None or not self._may_serve(state):
                return False
            return not self._has_room(state, head)
        if state.state in (S.UNLOADED, S.STARTING, S.FAILED):
            return (state.wanted and state.target is None) or state.target is S.PARKED
        return state.state is S.PARKED and state.wanted and state.target is None

    def _admit_to_device(self, state: ModelState) -> bool:
        """Load a parked model, or let a ready one have what its next request needs."""
        head = state.queue.head
        need = self.placement.work_bytes(state, head.demand) if head else 0
        if state.state is S.READY:
            return self._room(state, state.device, need) and self._serve_next(state)
        if not self._room(state, state.device, state.footprint.ready_bytes + need):
            return False
        self._move(state, S.LOADING, "wanted", Cause.WANTED)
        self._out.append(ForkWorker(state.model))
        return True

    def _room(self, state: ModelState, resource: str, need: int) -> bool:
        """Whether `state` may take `need` bytes now; where not, see to it that it soon may."""
        room = self.placement.room(state, resource, need, self._now)
        if room.taken:
            return True
        self._wake_at(room.wake_at)
        if (room.never or room.victims) and resource != HOST and not self._fresh(resource):
            return False
        if room.never is not None:
            self._give_up(state, room.never)
        for victim in room.victims:
            self._evict(victim, state, resource)
        return False

    def _fresh(self, device: str) -> bool:
        """Whether the device was measured just now; where not, have that done: it may look different there."""
        if device in self._measured_at and self._now - self._measured_at[device] <= _FRESH_S:
            return True
        if device not in self._measuring:
            self._measuring.add(device)
            self._out.append(MeasureDevice(device))
        return False

    def _evict(self, victim: ModelState, wanting: ModelState, resource: str) -> None:
        reason = f"evicted for {wanting.model}"
        to = S.UNLOADED if resource == HOST else S.PARKED
        if victim.state is S.READY and victim.leases:
            victim.evicted_for, victim.evicted_to = wanting.model, to
            self._move(victim, S.DRAINING, reason, Cause.PRESSURE)
        else:
            self._leave_device(victim, to, reason, Cause.PRESSURE)

    def _still_evicted(self, state: ModelState) -> bool:
        """Whether the model that `state` drains for still waits for the room."""
        wanting = self.models.get(state.evicted_for)
        return wanting is not None and self._needs_room(wanting)

    def _leave_device(self, state: ModelState, to: S, reason: str, cause: Cause) -> None:
        """Begin to move an unleased model down to PARKED or UNLOADED."""
        state.evicted_for, state.evicted_to = "", None
        if to is S.PARKED:
            self._move(state, S.PARKING, reason, cause)
            self._out.append(StopWorker(state.model))
        else:
            self._move(state, S.STOPPING, reason, cause)
            self._out.append(StopZygote(state.model))

    # --- small questions and steps ------------------------------------------------------------------------------

    def _may_serve(self, state: ModelState) -> bool:
        return state.state is S.READY and state.target is None and state.at_work < state.profile.concurrency

    def _idle_for(self, state: ModelState, keep_s: float) -> bool:
        """Whether an idle model's time is up; where not yet, wake when it is."""
        if keep_s < 0 or state.wanted or state.leases or state.profile.pinned:
            return False
        ends = state.idle_since + keep_s
        if self._now >= ends:
            return True
        self._wake_at(ends)
        return False

    def _give_up(self, state: ModelState, error: AudiodError) -> None:
        """Answer everyone who waits for `state` to come up with `error`."""
        for waiter in list(state.queue):
            state.queue.remove(waiter.request)
            self._reject(waiter.request, error)
        self._finish(state.load_operations, error)
        self._finish(state.park_operations, error)
        if state.target is S.PARKED:
            state.target = None

    def _failure_answer(self, state: ModelState, error: AudiodError) -> ModelFailed:
        return ModelFailed(
            f"{state.model} could not be loaded: {error.message}",
            hint=error.hint or f"audioctl load {state.model}",
            retry_after_s=max(1, math.ceil(state.retry_at - self._now)),
        )

    def _void_leases(self, state: ModelState) -> None:
        for request in state.leases:
            del self._model_of[request]
        state.leases.clear()
        state.evicted_for, state.evicted_to = "", None

    def _reject(self, request: int, error: AudiodError) -> None:
        """Answer a request that is in no queue any more."""
        del self._model_of[request]
        self._out.append(Reject(request, error))

    def _finish(self, operations: list[int], error: AudiodError | None = None) -> None:
        self._out.extend(Finish(operation, error) for operation in operations)
        operations.clear()

    def _move(self, state: ModelState, to: S, reason: str, cause: Cause | None = None) -> None:
        """Without a `cause` this is the next step of what has begun, and has the cause of that."""
        chapter = state.transition(to, reason, self._now)
        state.cause = cause or state.cause
        wanted_since = state.wanted_since if state.wanted else None
        self._out.append(Announce(state.model, chapter.previous, to, reason, state.cause, wanted_since))

    def _wake_at(self, at: float) -> None:
        self.next_wakeup = min(self.next_wakeup, at)
