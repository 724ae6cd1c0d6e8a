"""Who may come up next, and who makes room for it: starts and loads what is wanted, lowest rank first.

placement.py says whether there is room, policy.py who goes; here it is acted upon.
"""

from __future__ import annotations

from collections.abc import Mapping

from audiod.residency.budget import Measured
from audiod.residency.events import HOST, Cause, DeviceMeasured, ForkWorker, MeasureDevice, Report, StartZygote
from audiod.residency.machine import ModelState
from audiod.residency.placement import Placement
from audiod.residency.serving import Serving
from audiod.residency.step import Step
from audioproto.types import Residency as S

_NEARLY_FULL = 0.9
_ROOMY = 0.85
"""Shares of a device's memory: above the one it is told that it is nearly full, once until it was below the other."""

_FRESH_S = 1.0
"""What a device was measured to hold longer ago is measured again before anybody is evicted or refused for it."""


class Admission:
    """The rules of coming up. `models` are all there are."""

    def __init__(self, step: Step, models: Mapping[str, ModelState], placement: Placement, serving: Serving) -> None:
        self._step = step
        self._models = models
        self._placement = placement
        self._serving = serving
        self._measured_at: dict[str, float] = {}
        self._measuring: set[str] = set()
        self._nearly_full: set[str] = set()

    def admit(self) -> bool:
        """Start, load or serve what is wanted, and make room for it. True if anything changed.

        Nobody overtakes the first one that waits for room: a smaller model would take it away for ever.
        """
        needy = [state for state in self._models.values() if self.needs_room(state)]
        needy.sort(key=lambda state: state.rank)
        full: set[str] = set()
        for state in needy:
            if state.state is S.READY and self._serving.serve(state):  # others have left room
                self._step.touched[state.model] = None
                return True
            absent = state.state in (S.UNLOADED, S.FAILED)
            resource = HOST if absent else state.device
            if resource in full or state.state is S.STARTING:
                continue
            if self._start(state) if absent else self._load(state):
                self._step.touched[state.model] = None
                return True
            if not self.needs_room(state):  # it was found never to fit, and given up: others may go in its place
                return True
            full.add(resource)
        return False

    def needs_room(self, state: ModelState) -> bool:
        """Whether the model cannot go on without memory that it does not have."""
        if not state.wanted and state.target is not S.PARKED:
            return False
        if state.state is S.READY:
            return state.queue.head is not None and self._serving.has_place(state)  # or it would have been served
        if state.state in (S.UNLOADED, S.STARTING, S.FAILED):
            return (state.wanted and state.target is None) or state.target is S.PARKED
        return state.state is S.PARKED and state.wanted and state.target is None

    def still_needed(self, state: ModelState) -> bool:
        """Whether the model that `state` drains for still waits for the room."""
        wanting = self._models.get(state.evicted_for)
        return wanting is not None and self.needs_room(wanting)

    def measured(self, event: DeviceMeasured) -> None:
        self._measuring.discard(event.device)
        self._measured_at[event.device] = self._step.now
        self._placement.measured.pop(event.device, None)
        if event.total_bytes:
            self._placement.measured[event.device] = Measured(event.total_bytes, event.others_bytes)

    def relieve(self) -> bool:
        """Where more is held than may be, because models have grown or other programs have, send idle models away.

        True where that is not enough, and is to be tried again when others are idle.
        """
        over = False
        for device in self._placement.limits.devices:
            for state in self._placement.excess(device):
                self._step.leave_device(state, S.PARKED, "more is held than may be", Cause.PRESSURE)
            over |= self._placement.over(device) > 0
            self._warn(device)
        return over

    def _warn(self, device: str) -> None:
        """Report a device that is nearly full, once, until there is clearly more room."""
        held, capacity = self._placement.reserved(device), self._placement.capacity(device)
        if held <= _ROOMY * capacity:
            self._nearly_full.discard(device)
        elif held > _NEARLY_FULL * capacity and device not in self._nearly_full:
            self._nearly_full.add(device)
            message = f"models hold {held / 2**20:.0f} of the {capacity / 2**20:.0f} MiB that they may on {device}"
            self._step.out.append(Report("memory", message))

    def make_way(self, wanting: ModelState) -> None:
        """Memory ran out where it should have sufficed: send all idle models away before `wanting` goes on."""
        wanting.ran_out = True
        for other in self._placement.idle_on(wanting.device):
            if other is not wanting:
                self._step.leave_device(other, S.PARKED, f"{wanting.model} ran out of memory", Cause.PRESSURE)

    def _start(self, state: ModelState) -> bool:
        if not self._room(state, HOST, state.footprint.parked_bytes):
            return False
        state.failure = None
        state.device = state.profile.device
        state.outdated = False
        if state.wanted:
            self._step.move(state, S.STARTING, "wanted", Cause.WANTED)
        else:
            self._step.move(state, S.STARTING, "park asked", Cause.OPERATOR)
        self._step.out.append(StartZygote(state.model))
        return True

    def _load(self, state: ModelState) -> bool:
        """Load a parked model, or have room made for what a ready one's next request needs."""
        head = state.queue.head
        if state.state is S.READY:
            assert head is not None
            self._room(state, state.device, self._placement.more_bytes(state, head.demand))
            return False
        work_bytes = self._placement.work_bytes(state, head.demand) if head else 0
        if not self._room(state, state.device, state.footprint.ready_bytes + work_bytes):
            return False
        self._step.move(state, S.LOADING, "wanted", Cause.WANTED)
        self._step.out.append(ForkWorker(state.model))
        return True

    def _room(self, state: ModelState, resource: str, need: int) -> bool:
        """Whether `state` may take `need` bytes now; where not, see to it that it soon may."""
        room = self._placement.room(state, resource, need, self._step.now)
        if room.taken:
            return True
        self._step.wake_at(room.wake_at)
        if (room.never or room.victims) and resource != HOST and not self._fresh(resource):
            return False
        if room.never is not None:
            self._step.give_up(state, room.never)
        for victim in room.victims:
            self._evict(victim, state, resource)
        return False

    def _fresh(self, device: str) -> bool:
        """Whether the device was measured just now; where not, have that done: it may look different there."""
        if device in self._measured_at and self._step.now - self._measured_at[device] <= _FRESH_S:
            return True
        if device not in self._measuring:
            self._measuring.add(device)
            self._step.out.append(MeasureDevice(device))
        return False

    def _evict(self, victim: ModelState, wanting: ModelState, resource: str) -> None:
        reason = f"evicted for {wanting.model}"
        victim.evicted_at = self._step.now
        to = S.UNLOADED if resource == HOST else S.PARKED
        if victim.state is S.READY and victim.leases:
            victim.evicted_for, victim.evicted_to = wanting.model, to
            self._step.move(victim, S.DRAINING, reason, Cause.PRESSURE)
        else:
            self._step.leave_device(victim, to, reason, Cause.PRESSURE)
