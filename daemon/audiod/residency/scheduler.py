"""Owns all residency state: `handle(event, now) -> instructions`, and nothing else changes it.

Pure: no I/O, no clock, no asyncio, no logging. A function without `await` is the lock. After every event the state
is settled: what can be granted is granted, what can move moves, and `next_wakeup` says when time alone changes
something.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator

from audiod.residency import budget
from audiod.residency.events import (
    Announce,
    Cancelled,
    Cause,
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
    ParkAsked,
    Profile,
    Reconfigured,
    Reject,
    Released,
    Requested,
    Resource,
    StartFailed,
    StartZygote,
    StopWorker,
    StopZygote,
    TimePassed,
    UnloadAsked,
    WorkerDied,
    WorkerLoaded,
    WorkerStopped,
    ZygoteDied,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.machine import ModelState
from audiod.residency.policy import Candidate, choose_victims
from audioproto.errors import (
    AudiodError,
    BadRequest,
    Draining,
    ModelFailed,
    ModelNotFound,
    ModelTooLarge,
    QueueFull,
    QueueTimeout,
)
from audioproto.types import Residency as S

_UNKNOWN_LOAD_S = 5.0
"""Assumed load time for Retry-After before a model has ever been loaded."""

_MIB = 1024 * 1024


def _no_such_model(model: str) -> ModelNotFound:
    return ModelNotFound(f"there is no model {model!r}", hint="audioctl models")


class Scheduler:
    """All models' states, the queue and the leases. Read them freely; change them through `handle` only."""

    def __init__(self, profiles: Iterable[Profile], limits: Limits) -> None:
        self.models = {p.model: ModelState(p, p.ready_bytes, p.parked_bytes) for p in profiles}
        self.limits = limits
        self.draining = False
        self.next_wakeup = math.inf
        self._drain_operations: list[int] = []
        self._model_of: dict[int, str] = {}  # every request that waits or holds a lease
        self._deadlines: list[tuple[float, int]] = []  # heap; entries of requests no longer waiting are skipped
        self._now = 0.0
        self._out: list[Instruction] = []

    @property
    def queue_length(self) -> int:
        return sum(len(state.waiters) for state in self.models.values())

    def estimate_wait_s(self, model: str) -> float:
        """Seconds until one more request for `model` would be served, from what loads and leases took so far."""
        state = self.models[model]
        ahead = sum(
            (len(m.waiters) + len(m.leases)) * m.service_s / m.profile.concurrency for m in self.models.values()
        )
        load = 0.0 if state.state is S.READY else state.load_s or _UNKNOWN_LOAD_S
        return max(1.0, min(120.0, ahead + load))

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
                if (model := self._model_of.get(request)) and self.models[model].waiters.pop(request, None) is not None:
                    del self._model_of[request]
            case Released(request, _):
                self._released(request)
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
                    state.parked_bytes = host_bytes or state.parked_bytes
                    state.idle_since = self._now
                    self._move(state, S.PARKED, "zygote started")
            case WorkerLoaded(model, device_bytes):
                self._worker_loaded(self.models[model], device_bytes)
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
                self._failed(self.models[model], error, S.STOPPING)
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
        self.models[event.model].waiters[event.request] = self._now
        self._model_of[event.request] = event.model
        heapq.heappush(self._deadlines, (event.deadline, event.request))

    def _refusal(self, model: str) -> AudiodError | None:
        """Why a request for `model` is not even queued, if so."""
        state = self.models.get(model)
        if state is None or state.removed:
            return _no_such_model(model)
        if self.draining:
            return Draining("audiod is draining and takes no new work", hint="audioctl undrain", retry_after_s=30)
        if (too_large := self._never_fits(state)) is not None:
            return too_large
        if state.failure is not None and self._now < state.retry_at:
            return self._failure_answer(state, state.failure)
        if not self._grantable(state) and self.queue_length >= self.limits.queue_requests:
            return QueueFull(
                f"{self.limits.queue_requests} requests are waiting, which is the limit",
                retry_after_s=math.ceil(self.estimate_wait_s(model)),
            )
        return None

    def _released(self, request: int) -> None:
        model = self._model_of.get(request)
        if model is None or request not in self.models[model].leases:
            return  # its worker died first, which ended the lease
        del self._model_of[request]
        state = self.models[model]
        lasted = self._now - state.leases.pop(request)
        state.service_s = lasted if not state.service_s else 0.7 * state.service_s + 0.3 * lasted
        state.crashes = 0
        if not state.leases:
            state.idle_since = self._now

    def _operation(self, event: LoadAsked | ParkAsked | UnloadAsked) -> None:
        state = self.models.get(event.model)
        if state is None:
            self._out.append(Finish(event.operation, _no_such_model(event.model)))
            return
        superseded = BadRequest(f"another operation on {event.model} came after this one")
        if isinstance(event, LoadAsked):
            if (too_large := self._never_fits(state)) is not None:
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
        state.ready_bytes = device_bytes or state.ready_bytes
        state.load_s = self._now - state.since
        state.failures = 0
        state.failure = None
        state.idle_since = self._now
        self._move(state, S.READY, "loaded")

    def _failed(self, state: ModelState, error: AudiodError, after: S) -> None:
        """A start or load failed. `after` is FAILED where no process is left, STOPPING where the zygote still lives."""
        if state.state not in (S.STARTING, S.LOADING, S.PARKED, S.READY, S.DRAINING):
            return  # it is being stopped, which is what would happen now anyway
        state.failure = error
        state.failures += 1
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
        self.limits = event.limits
        wanted = {profile.model: profile for profile in event.profiles}
        for state in self.models.values():
            state.removed = state.model not in wanted
            if state.removed:
                state.target = S.UNLOADED
                self._give_up(state, _no_such_model(state.model))
        for model, profile in wanted.items():
            if model not in self.models:
                self.models[model] = ModelState(profile, profile.ready_bytes, profile.parked_bytes)
            else:
                self.models[model].profile = profile

    # --- settling -----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Do whatever the state now calls for, until it calls for nothing."""
        self.next_wakeup = math.inf
        self._expire_waiters()
        while any([self._advance(state) for state in list(self.models.values())]) or self._admit():
            pass
        if self.draining and not any(m.waiters or m.leases for m in self.models.values()):
            self._finish(self._drain_operations)

    def _expire_waiters(self) -> None:
        while self._deadlines:
            deadline, request = self._deadlines[0]
            model = self._model_of.get(request)
            waiting = model is not None and request in self.models[model].waiters
            if waiting and deadline > self._now:
                self._wake_at(deadline)
                return
            heapq.heappop(self._deadlines)
            if waiting and model is not None:
                state = self.models[model]
                waited_s = self._now - state.waiters[request]
                retry_after_s = math.ceil(self.estimate_wait_s(model))
                message = f"{model} was not free within {waited_s:.0f} s"
                self._reject(state, request, QueueTimeout(message, retry_after_s=retry_after_s))

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
                    return False
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
        while self._grantable(state) and state.waiters:
            request, _ = state.waiters.popitem(last=False)
            state.leases[request] = self._now
            self._out.append(Grant(request, state.model))
            changed = True
        if self._idle_for(state, state.profile.keep_alive_s):
            self._leave_device(state, S.PARKED, f"idle for {state.profile.keep_alive_s:g} s", Cause.IDLE)
            return True
        return changed

    def _advance_parked(self, state: ModelState) -> bool:
        if state.target is S.PARKED:
            state.target = None
            self._finish(state.park_operations)
            return True
        asked = state.target is S.UNLOADED
        if asked or self._idle_for(state, state.profile.park_keep_alive_s):
            reason = "unload asked" if asked else f"parked for {state.profile.park_keep_alive_s:g} s"
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

    def _admit(self) -> bool:
        """Start or load what is wanted, longest wait first, and make room for it. True if anything changed.

        Nobody overtakes the first one that waits for room: a smaller model would take it away for ever.
        """
        absent = [m for m in self.models.values() if m.state in (S.UNLOADED, S.FAILED) and self._wants_zygote(m)]
        for state in sorted(absent, key=self._asked_at):
            if self._room(state, Resource.HOST):
                state.failure = None
                if state.wanted:
                    self._move(state, S.STARTING, "wanted", Cause.WANTED)
                else:
                    self._move(state, S.STARTING, "park asked", Cause.OPERATOR)
                self._out.append(StartZygote(state.model))
                return True
            if self._wants_zygote(state):  # unless it was found never to fit, and given up
                break
        parked = [m for m in self.models.values() if m.state is S.PARKED and m.wanted and m.target is None]
        for state in sorted(parked, key=self._asked_at):
            if self._room(state, Resource.DEVICE):
                self._move(state, S.LOADING, "wanted", Cause.WANTED)
                self._out.append(ForkWorker(state.model))
                return True
            if state.wanted:
                break
        return False

    def _room(self, state: ModelState, resource: Resource) -> bool:
        """Whether `state` may take its share of `resource` now; where not, see to it that it soon may."""
        need = state.ready_bytes if resource is Resource.DEVICE else state.parked_bytes
        others = [other for other in self.models.values() if other is not state]
        if need > budget.capacity(self.limits, resource) - sum(self._immovable(other, resource) for other in others):
            self._failed_to_fit(state)
            return False
        free = budget.capacity(self.limits, resource) - budget.reserved(self.models.values(), resource)
        if need <= free:
            return True
        short = need - free - budget.coming(self.models.values(), resource)
        if short <= 0:
            return False  # it is on its way
        candidates = list(self._candidates(state, resource))
        victims = choose_victims(candidates, short)
        if victims is None:
            return False  # some of it is held by models on their way up, which may be asked again when they are there
        busy = [self.models[v.model] for v in victims if v.busy]
        if busy:
            # The resident serves on for its fair share, so that requests of one model are batched between switches.
            turn = max(self._asked_at(state), *(m.since for m in busy)) + self.limits.max_switch_wait_s
            if self._now < turn:
                self._wake_at(turn)
                return False
        for victim in victims:
            self._evict(self.models[victim.model], state, resource)
        return False

    def _candidates(self, wanting: ModelState, resource: Resource) -> Iterator[Candidate]:
        """Who may be evicted for `wanting`: ready models, and for host memory also parked ones nobody waits for."""
        for state in self.models.values():
            evictable = state.state is S.READY or (
                resource is Resource.HOST and state.state is S.PARKED and not state.wanted
            )
            if evictable and state is not wanting and not state.profile.pinned and state.target is None:
                yield Candidate(state.model, budget.holds(state, resource), not state.idle, state.idle_since)

    def _immovable(self, other: ModelState, resource: Resource) -> int:
        """Bytes that nothing but unpinning `other` would free."""
        stays = other.profile.pinned and other.target is None and other.state in (S.READY, S.PARKED)
        return budget.holds(other, resource) if stays else 0

    def _evict(self, victim: ModelState, wanting: ModelState, resource: Resource) -> None:
        reason = f"evicted for {wanting.model}"
        to = S.PARKED if resource is Resource.DEVICE else S.UNLOADED
        if victim.state is S.READY and victim.leases:
            victim.evicted_for, victim.evicted_to = wanting.model, to
            self._move(victim, S.DRAINING, reason, Cause.PRESSURE)
        else:
            self._leave_device(victim, to, reason, Cause.PRESSURE)

    def _still_evicted(self, state: ModelState) -> bool:
        """Whether the model that `state` drains for still waits for the room."""
        wanting = self.models.get(state.evicted_for)
        return (
            wanting is not None
            and (wanting.wanted or wanting.target is S.PARKED)
            and wanting.state in (S.UNLOADED, S.STARTING, S.PARKED, S.FAILED)
        )

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

    def _grantable(self, state: ModelState) -> bool:
        return state.state is S.READY and state.target is None and len(state.leases) < state.profile.concurrency

    def _wants_zygote(self, state: ModelState) -> bool:
        return (state.wanted and state.target is None) or state.target is S.PARKED

    def _asked_at(self, state: ModelState) -> float:
        return state.wanted_since if state.wanted else state.since

    def _idle_for(self, state: ModelState, keep_s: float) -> bool:
        """Whether an idle model's time is up; where not yet, wake when it is."""
        if keep_s < 0 or state.wanted or state.leases or state.profile.pinned:
            return False
        ends = state.idle_since + keep_s
        if self._now >= ends:
            return True
        self._wake_at(ends)
        return False

    def _never_fits(self, state: ModelState) -> ModelTooLarge | None:
        for need, resource, words in (
            (state.ready_bytes, Resource.DEVICE, "on the device"),
            (state.parked_bytes, Resource.HOST, "of host memory"),
        ):
            limit = budget.capacity(self.limits, resource)
            if need > limit:
                message = f"{state.model} needs {need / _MIB:.0f} MiB {words}; the budget is {limit / _MIB:.0f} MiB"
                return ModelTooLarge(message, hint="raise the budget in audiod.toml, then: audioctl reload")
        return None

    def _failed_to_fit(self, state: ModelState) -> None:
        """A model that is waited for cannot get its room: it outgrew the budget, or others are pinned."""
        beside_pinned = ModelTooLarge(f"{state.model} does not fit beside the pinned models", hint="audioctl status")
        self._give_up(state, self._never_fits(state) or beside_pinned)

    def _give_up(self, state: ModelState, error: AudiodError) -> None:
        """Answer everyone who waits for `state` to come up with `error`."""
        for request in list(state.waiters):
            self._reject(state, request, error)
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

    def _reject(self, state: ModelState, request: int, error: AudiodError) -> None:
        del state.waiters[request]
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
