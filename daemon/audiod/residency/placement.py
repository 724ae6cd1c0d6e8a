"""Whether there is room for a model, and if not, who should make some. Answers; the scheduler acts.

Looks at the states of all models and at what was measured; changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audiod.residency import budget
from audiod.residency.budget import Measured
from audiod.residency.events import HOST, Demand, Limits
from audiod.residency.machine import ModelState
from audiod.residency.policy import Candidate, choose_victims, turn_ends
from audioproto.errors import AudiodError, ModelTooLarge, OutOfMemory
from audioproto.types import Residency as S

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Room:
    """`taken`: it may be had now. Else `victims` have to go first, or time must pass until `wake_at`, or something
    under way must end, or `never` says why there will be none."""

    taken: bool = False
    victims: tuple[ModelState, ...] = ()
    wake_at: float = math.inf
    never: AudiodError | None = None


@dataclass(slots=True)
class Placement:
    """The models, their limits, and what was measured, by device."""

    models: Mapping[str, ModelState]
    limits: Limits
    measured: dict[str, Measured]

    def allowed(self, resource: str) -> int:
        return budget.allowed(self.limits, self.measured, resource)

    def capacity(self, resource: str) -> int:
        return budget.capacity(self.limits, self.measured, resource)

    def reserved(self, resource: str) -> int:
        return budget.reserved(self.models.values(), resource)

    def work_bytes(self, state: ModelState, demand: Demand) -> int:
        """What to set aside for a request, which is never more than what there is beside its model."""
        work_bytes = state.footprint.work_bytes(demand.size)
        if not work_bytes:
            return 0
        return min(work_bytes, max(0, self.allowed(state.device) - state.footprint.ready_bytes))

    def more_bytes(self, state: ModelState, demand: Demand) -> int:
        """What a ready model would have to be given for a request, beyond what it holds."""
        holds = budget.holds(state, state.device)
        at_work = sum([lease.work_bytes for lease in state.leases.values()])
        return max(0, state.footprint.ready_bytes + at_work + self.work_bytes(state, demand) - holds)

    def never_fits(self, state: ModelState) -> ModelTooLarge | None:
        """Why the model could not even be loaded alone, if so."""
        for need, resource, words in (
            (state.footprint.ready_bytes, state.profile.device, f"on {state.profile.device}"),
            (state.footprint.parked_bytes, HOST, "of host memory while parked"),
        ):
            limit = self.allowed(resource)
            if need > limit:
                message = f"{state.model} needs {need / _MIB:.0f} MiB {words}; the budget is {limit / _MIB:.0f} MiB"
                hint = "raise the budget in audiod.toml, or correct the sizes in its file, then: audioctl reload"
                return ModelTooLarge(message, hint=hint)
        return None

    def room(self, wanting: ModelState, resource: str, need: int, now: float) -> Room:
        """Whether `wanting` may take `need` bytes of `resource` at the time `now`, beyond what it has."""
        others = [other for other in self.models.values() if other is not wanting]
        immovable = sum(self._immovable(other, resource) for other in others)
        total = need + (wanting.footprint.ready_bytes if wanting.state is S.READY else 0)
        if total > self.capacity(resource) - immovable:
            return Room(never=self.never_fits(wanting) or self._crowded_out(wanting, resource, total))
        free = self.capacity(resource) - self.reserved(resource)
        coming = budget.coming(others, resource)
        if need <= free:
            # Where memory ran out although the sums were right, only what is really free counts.
            return Room(taken=not (wanting.ran_out and coming))
        short = need - free - coming
        if short <= 0:
            return Room()  # it is on its way
        chosen = choose_victims(list(self._candidates(wanting, resource)), short)
        if chosen is None:
            return Room()  # some of it is held by models on their way up, which may be asked again when they are there
        victims = tuple(self.models[candidate.model] for candidate in chosen)
        busy = [victim for victim in victims if not victim.idle]
        if busy:
            turn = max(self._turn_ends(victim, wanting) for victim in busy)
            if now < turn:
                return Room(wake_at=turn)
        return Room(victims=victims)

    def idle_on(self, device: str) -> list[ModelState]:
        """Models that may leave the device at once."""
        return [m for m in self.models.values() if m.device == device and m.state is S.READY and self._may_leave(m)]

    def over(self, device: str) -> int:
        """Bytes that are held there beyond what may be, and are not on their way out."""
        return self.reserved(device) - self.capacity(device) - budget.coming(self.models.values(), device)

    def excess(self, device: str) -> list[ModelState]:
        """Idle models that should leave the device, because more is held there than may be."""
        if (over := self.over(device)) <= 0:
            return []
        idle = [self._candidate(state, device) for state in self.idle_on(device)]
        chosen = choose_victims(idle, min(over, sum(candidate.frees_bytes for candidate in idle)))
        return [self.models[candidate.model] for candidate in chosen or ()]

    def _turn_ends(self, victim: ModelState, wanting: ModelState) -> float:
        head = victim.queue.head
        owes = head is not None and head.rank < wanting.rank
        return turn_ends(wanting.rank, victim.since, owes, self.limits)

    def _may_leave(self, state: ModelState) -> bool:
        return state.idle and not state.profile.pinned and state.target is None

    def _candidates(self, wanting: ModelState, resource: str) -> Iterator[Candidate]:
        """Who may be evicted for `wanting`: ready models, and for host memory also parked ones nobody waits for."""
        for state in self.models.values():
            evictable = state.state is S.READY or (resource == HOST and state.state is S.PARKED and not state.wanted)
            holds = budget.holds(state, resource)
            if evictable and holds and state is not wanting and not state.profile.pinned and state.target is None:
                yield self._candidate(state, resource)

    def _candidate(self, state: ModelState, resource: str) -> Candidate:
        frees = budget.holds(state, resource)
        back_s = state.footprint.load_s + (state.footprint.start_s if resource == HOST else 0.0)
        return Candidate(state.model, frees, not state.idle, state.idle_since, back_s)

    def _immovable(self, other: ModelState, resource: str) -> int:
        """Bytes that nothing but unpinning `other` would free."""
        stays = other.profile.pinned and other.target is None and other.state in (S.READY, S.PARKED)
        return budget.holds(other, resource) if stays else 0

    def _crowded_out(self, wanting: ModelState, resource: str, total: int) -> AudiodError:
        """Why `wanting` gets no room though it would fit alone: other programs, or pinned models."""
        seen = self.measured.get(resource)
        if seen is not None and total > self.capacity(resource):
            return OutOfMemory(
                f"{wanting.model} needs {total / _MIB:.0f} MiB on {resource}, of which other programs hold "
                f"{seen.others_bytes / _MIB:.0f} of {seen.total_bytes / _MIB:.0f} MiB",
                hint="audioctl status",
            )
        return ModelTooLarge(f"{wanting.model} does not fit beside the pinned models", hint="audioctl status")
