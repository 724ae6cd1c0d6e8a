"""One event's handling: the time, what is to be done about it, and the few moves that all rules are made of.

Decides nothing: scheduler.py, serving.py and admission.py do, and speak through it.
"""

from __future__ import annotations

import math

from audiod.residency.events import Announce, Cause, Finish, Instruction, Reject, StopWorker, StopZygote
from audiod.residency.machine import ModelState
from audioproto.errors import AudiodError
from audioproto.types import Residency


class Step:
    """Begun anew for each event by `begin`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.out: list[Instruction] = []
        self.wakes_at = math.inf
        """When time alone changes something for the rule that is being applied."""
        self.model_of: dict[int, str] = {}
        """Every request that waits or holds a lease."""
        self.touched: dict[str, None] = {}
        """Models that may have something to do, as the keys, in the order of their turn."""

    def begin(self, now: float) -> None:
        self.now = now
        self.out = []

    def wake_at(self, at: float) -> None:
        self.wakes_at = min(self.wakes_at, at)

    def reject(self, request: int, error: AudiodError) -> None:
        """Answer a request that is in no queue any more."""
        del self.model_of[request]
        self.out.append(Reject(request, error))

    def finish(self, operations: list[int], error: AudiodError | None = None) -> None:
        self.out.extend(Finish(operation, error) for operation in operations)
        operations.clear()

    def give_up(self, state: ModelState, error: AudiodError) -> None:
        """Answer everyone who waits for `state` to come up with `error`."""
        for waiter in list(state.queue):
            state.queue.remove(waiter.request)
            self.reject(waiter.request, error)
        self.finish(state.load_operations, error)
        self.finish(state.park_operations, error)
        if state.target is Residency.PARKED:
            state.target = None

    def void_leases(self, state: ModelState) -> None:
        """The worker is gone, or is to go at once: nobody holds it any more."""
        for request in state.leases:
            del self.model_of[request]
        state.leases.clear()
        state.evicted_for, state.evicted_to = "", None

    def leave_device(self, state: ModelState, to: Residency, reason: str, cause: Cause) -> None:
        """Begin to move an unleased model down to PARKED or UNLOADED."""
        state.evicted_for, state.evicted_to = "", None
        if to is Residency.PARKED:
            self.move(state, Residency.PARKING, reason, cause)
            self.out.append(StopWorker(state.model))
        else:
            self.move(state, Residency.STOPPING, reason, cause)
            self.out.append(StopZygote(state.model))

    def move(self, state: ModelState, to: Residency, reason: str, cause: Cause | None = None) -> None:
        """Without a `cause` this is the next step of what has begun, and has the cause of that."""
        chapter = state.transition(to, reason, self.now)
        state.cause = cause or state.cause
        wanted_since = state.wanted_since if state.wanted else None
        self.out.append(Announce(state.model, chapter.previous, to, reason, state.cause, wanted_since))
        self.touched[state.model] = None
