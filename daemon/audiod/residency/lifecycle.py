"""What a model does by itself: idles down, follows orders, fails and recovers; one rule for each state.

Who comes up is admission.py's matter, who is served serving.py's.
"""

from __future__ import annotations

import math

from audiod.residency.admission import Admission
from audiod.residency.events import Cause, Report, StopZygote, WorkerMeasured
from audiod.residency.growth import Growth
from audiod.residency.machine import Lease, ModelState
from audiod.residency.placement import Placement
from audiod.residency.serving import Serving
from audiod.residency.step import Step
from audioproto.errors import AudiodError, ModelFailed, OutOfMemory
from audioproto.types import Death
from audioproto.types import Residency as S


class Lifecycle:
    """The rules of going up and down. Each takes one model a step further."""

    def __init__(self, step: Step, placement: Placement, serving: Serving, admission: Admission) -> None:
        self._step = step
        self._placement = placement
        self._serving = serving
        self._admission = admission

    def advance(self, state: ModelState) -> bool:
        """Move one model a step by itself, if its state calls for it. True if anything changed."""
        match state.state:
            case S.READY:
                return self._advance_ready(state)
            case S.DRAINING:
                if state.target is None and not self._admission.still_needed(state):
                    state.evicted_for, state.evicted_to = "", None
                    self._step.move(state, S.READY, "the room is no longer needed", Cause.WANTED)
                elif not state.leases:
                    to = state.target or state.evicted_to or S.PARKED
                    self._step.leave_device(state, to, state.reason, state.cause)
                else:
                    return self._serving.resume(state)
                return True
            case S.PARKED:
                return self._advance_parked(state)
            case S.STARTING | S.LOADING:
                if state.target is not S.UNLOADED and not state.outdated:
                    return False
                self._step.move(state, S.STOPPING, self._why_unload(state), Cause.OPERATOR)
                self._step.out.append(StopZygote(state.model))
                return True
            case S.UNLOADED | S.FAILED:
                return self._advance_absent(state)
        return False

    def _advance_ready(self, state: ModelState) -> bool:
        if state.outdated and state.target is None:
            state.target = S.UNLOADED
        if state.target is not None:
            reason = "park asked" if state.target is S.PARKED else self._why_unload(state)
            if state.leases:
                self._step.move(state, S.DRAINING, reason, Cause.OPERATOR)
            else:
                self._step.leave_device(state, state.target, reason, Cause.OPERATOR)
            return True
        changed = bool(state.load_operations)
        state.ordered = state.ordered or changed
        self._step.finish(state.load_operations)
        while self._serving.serve(state):
            changed = True
        self._serving.interrupt(state)
        if self._placement.limits.recycle and state.growth.outgrown and state.idle:
            self._step.leave_device(state, S.PARKED, state.growth.story, Cause.GROWTH)
            return True
        if self._idle_for(state, state.keep_alive_s):
            self._step.leave_device(state, S.PARKED, f"idle for {state.keep_alive_s:g} s", Cause.IDLE)
            return True
        return changed

    def _advance_parked(self, state: ModelState) -> bool:
        if state.target is S.PARKED:
            state.target = None
            state.ordered = True
            self._step.finish(state.park_operations)
            return True
        asked = state.target is S.UNLOADED or state.outdated
        if asked or self._idle_for(state, state.park_keep_alive_s):
            reason = self._why_unload(state) if asked else f"parked for {state.park_keep_alive_s:g} s"
            self._step.move(state, S.STOPPING, reason, Cause.OPERATOR if asked else Cause.IDLE)
            self._step.out.append(StopZygote(state.model))
            return True
        return False

    def _advance_absent(self, state: ModelState) -> bool:
        if state.target is S.UNLOADED:
            state.target = None
            state.failure = None
            state.failures = 0
            self._step.finish(state.unload_operations)
            if state.state is S.FAILED:
                self._step.move(state, S.UNLOADED, "unload asked", Cause.OPERATOR)
            return True
        return False

    def _why_unload(self, state: ModelState) -> str:
        return "the configuration gives it more or less of the device" if state.outdated else "unload asked"

    def loaded(self, state: ModelState, device_bytes: int) -> None:
        if state.state is not S.LOADING:
            return
        # What a staged model holds now is no measure of what it will bring there.
        state.footprint.ready_bytes = max(device_bytes or state.footprint.ready_bytes, state.profile.staged_bytes)
        state.footprint.load_s = self._step.now - state.since
        state.failures = 0
        state.failure = None
        state.ran_out = False
        state.loads += 1
        state.rest_bytes = device_bytes
        state.growth = Growth()
        state.idle_since = self._step.now
        self._step.move(state, S.READY, "loaded")

    def measured(self, state: ModelState, event: WorkerMeasured) -> None:
        """What a request has shown of the model's appetite; a worker that is going or gone shows nothing."""
        if state.state not in (S.READY, S.DRAINING) or state.outdated or not event.resting_bytes:
            return
        state.footprint.learn_work(event.size, max(0, event.peak_bytes - state.footprint.ready_bytes))
        state.rest_bytes = event.resting_bytes
        if grown := state.growth.measure(max(event.resting_bytes, state.profile.staged_bytes)):
            self._step.out.append(Report("growth", f"{state.model} {grown}", state.model))

    def load_failed(self, state: ModelState, error: AudiodError) -> None:
        if state.state is S.LOADING and isinstance(error, OutOfMemory) and not state.ran_out:
            self._admission.make_way(state)
            self._step.move(state, S.PARKED, error.message, Cause.FAILURE)
        else:
            self.failed(state, error, S.STOPPING)

    def ran_out(self, state: ModelState, lease: Lease) -> None:
        """Memory ran out during a request: a second try of it, or one like it, finds all that can be freed.

        Of a staged model it was what is set aside for it, whatever others hold.
        """
        if state.profile.staged_bytes:
            return
        free = self._placement.capacity(state.device) - self._placement.reserved(state.device) + lease.work_bytes
        state.footprint.learn_work(lease.size, max(0, free) + 1)  # it was not enough
        self._admission.make_way(state)

    def failed(self, state: ModelState, error: AudiodError, after: S) -> None:
        """A start or load failed. `after` is FAILED where no process is left, STOPPING where the zygote still lives."""
        if state.state not in (S.STARTING, S.LOADING, S.PARKED, S.READY, S.DRAINING):
            return  # it is being stopped, which is what would happen now anyway
        state.failure = error
        state.failures += 1
        state.ran_out = False
        pause_s = min(
            self._placement.limits.backoff_cap_s, self._placement.limits.backoff_s * 2 ** (state.failures - 1)
        )
        state.retry_at = self._step.now + pause_s
        self._step.give_up(state, self.failure_answer(state, error))
        self._step.move(state, after, error.message, Cause.FAILURE)
        if after is S.STOPPING:
            self._step.out.append(StopZygote(state.model))

    def died(self, state: ModelState, reason: str, death: Death, after: S) -> None:
        """A process is gone, unasked. `after` is PARKED where the zygote lives, else UNLOADED."""
        if state.state in (S.STARTING, S.LOADING):
            self.failed(state, ModelFailed(reason), S.FAILED)
            return
        serving = state.state in (S.READY, S.DRAINING)
        if not (serving or (state.state in (S.PARKED, S.PARKING) and after is S.UNLOADED)):
            return  # it was being stopped, or it is news of a process long gone
        self._step.void_leases(state)
        state.crashes += 1
        if state.crashes >= self._placement.limits.crash_limit:
            state.crashes = 0
            message = f"{reason}; that was the {self._placement.limits.crash_limit}. time in a row"
            self.failed(state, ModelFailed(message), S.STOPPING if after is S.PARKED else S.FAILED)
            return
        if death is Death.OUT_OF_MEMORY:
            self._admission.make_way(state)
        state.idle_since = self._step.now
        self._step.move(state, after, reason, Cause.FAILURE)

    def _idle_for(self, state: ModelState, keep_s: float) -> bool:
        """Whether an idle model's time is up; where not yet, wake when it is."""
        if keep_s < 0 or state.wanted or state.leases or state.profile.pinned:
            return False
        if keep_s == 0 and state.ordered:  # or the order would have been for nothing
            return False
        ends = state.idle_since + keep_s
        if self._step.now >= ends:
            return True
        self._step.wake_at(ends)
        return False

    def failure_answer(self, state: ModelState, error: AudiodError) -> ModelFailed:
        return ModelFailed(
            f"{state.model} could not be loaded: {error.message}",
            hint=error.hint or f"audioctl load {state.model}",
            retry_after_s=max(1, math.ceil(state.retry_at - self._step.now)),
        )
