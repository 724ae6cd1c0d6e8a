"""Who is served next by a model that is ready: grants leases, and pauses long ones for much shorter requests.

Moves no model; where memory is short for a request, admission.py makes room.
"""

from __future__ import annotations

from audiod.residency import policy
from audiod.residency.events import Grant, Pause, Released, Resume
from audiod.residency.machine import Lease, ModelState
from audiod.residency.placement import Placement
from audiod.residency.queue import Waiter
from audiod.residency.step import Step
from audioproto.types import Residency as S


class Serving:
    """The rules of a ready model's places: `profile.concurrency` of them, and paused leases beside."""

    def __init__(self, step: Step, placement: Placement) -> None:
        self._step = step
        self._placement = placement

    def has_place(self, state: ModelState) -> bool:
        return state.state is S.READY and state.target is None and state.at_work < state.profile.concurrency

    def has_room(self, state: ModelState, waiter: Waiter) -> bool:
        """Whether a ready model may begin on the request with what memory is free."""
        more_bytes = self._placement.more_bytes(state, waiter.demand)
        if not more_bytes and not state.ran_out:
            return True
        return self._placement.room(state, state.device, more_bytes, self._step.now).taken

    def serve(self, state: ModelState) -> bool:
        """Give a free place to a request or to a paused lease. True if either got it."""
        if not self.has_place(state):
            return False
        paused = self._paused(state)
        if paused is None or paused.paused_at is None:
            waiter = state.queue.head
        elif self._step.now - paused.paused_at >= policy.LONGEST_PAUSE_S:
            waiter = None
        else:
            waiter = self._first_shorter(state, paused)
        if waiter is not None and self.has_room(state, waiter):
            self._grant(state, waiter)
            return True
        return self.resume(state)  # what else a request needs is room, which admission makes

    def _grant(self, state: ModelState, waiter: Waiter) -> None:
        state.ran_out = state.ordered = False
        state.queue.remove(waiter.request)
        work_bytes = self._placement.work_bytes(state, waiter.demand)
        state.leases[waiter.request] = Lease(waiter, self._step.now, work_bytes, self._step.now)
        self._step.out.append(Grant(waiter.request, state.model))

    def resume(self, state: ModelState) -> bool:
        """Let the lease that has stood still for longest go on, if there is one and a place for it."""
        lease = self._paused(state)
        if lease is None or lease.paused_at is None or state.at_work >= state.profile.concurrency:
            return False
        lease.last_pause_s = self._step.now - lease.paused_at
        lease.paused_s += lease.last_pause_s
        lease.paused_at = None
        lease.resumed_at = self._step.now
        self._step.out.append(Resume(lease.request))
        return True

    def interrupt(self, state: ModelState) -> None:
        """Where a request waits behind a job that is much longer, pause the longest such at its next segment.

        One that was interrupted before runs for as long as it stood still, so that it is never starved.
        """
        if not state.queue or state.at_work < state.profile.concurrency:
            return
        if any(lease.pausing for lease in state.leases.values()):
            return
        running = [lease for lease in state.leases.values() if lease.paused_at is None]
        for lease in sorted(running, key=lambda lease: -lease.size):
            waiter = self._first_shorter(state, lease)
            if waiter is None or not self.has_room(state, waiter):
                continue
            owed_until = lease.resumed_at + lease.last_pause_s
            if self._step.now >= owed_until:
                lease.pausing = True
                self._step.out.append(Pause(lease.request))
                return
            self._step.wake_at(owed_until)

    def yielded(self, state: ModelState, request: int) -> None:
        """A lease that was told to pause has stopped; its place is free."""
        lease = state.leases.get(request)
        if lease is not None and lease.pausing:
            lease.pausing = False
            lease.paused_at = self._step.now

    def released(self, state: ModelState, event: Released) -> Lease:
        """End a lease, and learn from it how long such requests take."""
        lease = state.leases.pop(event.request)
        if not event.abandoned and not event.out_of_memory:
            standing_s = 0.0 if lease.paused_at is None else self._step.now - lease.paused_at
            lasted_s = self._step.now - lease.granted_at - lease.paused_s - standing_s
            state.footprint.learn_service(lease.size, lasted_s)
        state.crashes = 0
        state.growth.count()
        state.last_demand = lease.waiter.demand
        if not state.leases:
            state.idle_since = self._step.now
        return lease

    def _first_shorter(self, state: ModelState, lease: Lease) -> Waiter | None:
        """The first who need not wait for the end of the lease's job, wherever in the queue."""
        if not policy.interrupts(state.queue.smallest, lease.size):  # nobody; said without asking each of thousands
            return None
        waiters = (waiter for waiter in state.queue if policy.interrupts(waiter.demand.size, lease.size))
        return next(waiters, None)

    def _paused(self, state: ModelState) -> Lease | None:
        """The lease that has stood still for longest."""
        paused = [lease for lease in state.leases.values() if lease.paused_at is not None]
        return min(paused, key=lambda lease: lease.paused_at or 0.0, default=None)
