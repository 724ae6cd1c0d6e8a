"""What the daemon's policy is compared with: switching in strict order of arrival, and greedy affinity.

Both stand in the scheduler's place, so that the same host carries them out. They are spared its cares: nothing fails,
nobody idles out, host memory suffices for all zygotes, and work takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from audiod.residency.events import (
    Event,
    ForkWorker,
    Grant,
    Instruction,
    Reject,
    Released,
    Requested,
    StartZygote,
    StopWorker,
    WorkerLoaded,
    WorkerStopped,
    ZygoteStarted,
)
from audiod.residency.scheduler import Scheduler
from audioproto.errors import QueueFull, QueueTimeout
from audioproto.types import Residency
from simulation.host import Policy
from simulation.scenario import Model, Scenario


@dataclass(slots=True)
class _Resident:
    """A model as the two see it."""

    name: str
    model: Model
    state: Residency = Residency.UNLOADED
    waiters: dict[int, float] = field(default_factory=dict)
    """Requests in order of arrival, with their deadlines."""
    leases: set[int] = field(default_factory=set)
    used_at: float = 0.0

    @property
    def on_device(self) -> bool:
        return self.state in (Residency.LOADING, Residency.READY, Residency.PARKING)

    @property
    def may_serve(self) -> bool:
        return self.state is Residency.READY and len(self.leases) < self.model.concurrency


class _Baseline:
    """What both share: the queue with its limits, and the moves. `_serve` is where they differ."""

    def __init__(self, scenario: Scenario) -> None:
        self.next_wakeup = math.inf
        self._scenario = scenario
        self._models = {name: _Resident(name, model) for name, model in scenario.models.items()}
        self._model_of: dict[int, _Resident] = {}
        """Of all that wait or are served, in order of arrival."""
        self._waiting = 0
        self._now = 0.0
        self._out: list[Instruction] = []

    def handle(self, event: Event, now: float) -> list[Instruction]:
        self._now, self._out = now, []
        match event:
            case Requested(request, model, deadline):
                if self._waiting >= self._scenario.limits.queue_requests:
                    self._out.append(Reject(request, QueueFull("the queue is full")))
                else:
                    self._model_of[request] = self._models[model]
                    self._models[model].waiters[request] = deadline
                    self._waiting += 1
            case Released(request):
                resident = self._model_of.pop(request)
                resident.leases.remove(request)
                resident.used_at = now
            case ZygoteStarted(model) | WorkerStopped(model):
                self._models[model].state = Residency.PARKED
            case WorkerLoaded(model):
                self._models[model].state = Residency.READY
        self._expire()
        for resident in self._models.values():
            if resident.waiters and resident.state is Residency.UNLOADED:
                resident.state = Residency.STARTING
                self._out.append(StartZygote(resident.name))
        self._serve()
        return self._out

    def _serve(self) -> None:
        raise NotImplementedError

    def _expire(self) -> None:
        """Send away whose time is up: all have the same patience, so those of each model in its order."""
        self.next_wakeup = math.inf
        for resident in self._models.values():
            while resident.waiters:
                request, deadline = next(iter(resident.waiters.items()))
                if deadline > self._now:
                    self.next_wakeup = min(self.next_wakeup, deadline)
                    break
                del resident.waiters[request], self._model_of[request]
                self._waiting -= 1
                self._out.append(Reject(request, QueueTimeout("it was not served in time")))

    def _grant(self, resident: _Resident) -> None:
        request = next(iter(resident.waiters))
        del resident.waiters[request]
        self._waiting -= 1
        resident.leases.add(request)
        self._out.append(Grant(request, resident.name))

    def _bring_up(self, wanted: _Resident, spared: Callable[[_Resident], bool]) -> None:
        """Load a parked model, or make the room for it of the least recently used that are not `spared`."""
        if wanted.state is not Residency.PARKED:
            return
        beside = [other for other in self._models.values() if other.model.device == wanted.model.device]
        held = sum(other.model.ready for other in beside if other.on_device)
        short = held + wanted.model.ready - self._scenario.devices[wanted.model.device]
        if short <= 0:
            wanted.state = Residency.LOADING
            self._out.append(ForkWorker(wanted.name))
            return
        short -= sum(other.model.ready for other in beside if other.state is Residency.PARKING)
        victims = [other for other in beside if other.state is Residency.READY and not spared(other)]
        for victim in sorted(victims, key=lambda resident: resident.used_at):
            if short > 0 and not victim.leases:
                victim.state = Residency.PARKING
                self._out.append(StopWorker(victim.name))
                short -= victim.model.ready


class FifoSwitching(_Baseline):
    """Strictly in order of arrival: the first in the queue is served next, and its model loaded where it is not."""

    def _serve(self) -> None:
        while self._waiting:
            head = next(resident for request, resident in self._model_of.items() if request in resident.waiters)
            if not head.may_serve:
                if head.state is not Residency.READY:
                    self._bring_up(head, spared=lambda resident: False)
                return
            self._grant(head)


class GreedyAffinity(_Baseline):
    """Resident models serve as long as they have requests; then the one is loaded that is waited for longest."""

    def _serve(self) -> None:
        for resident in self._models.values():
            while resident.waiters and resident.may_serve:
                self._grant(resident)
        absent = [m for m in self._models.values() if m.waiters and m.state is not Residency.READY]
        if absent:
            # Requests are numbered in order of arrival. Nobody overtakes the first: a smaller model would for ever.
            first = min(absent, key=lambda resident: next(iter(resident.waiters)))
            self._bring_up(first, spared=lambda resident: bool(resident.waiters))


def daemon_scheduler(scenario: Scenario) -> Policy:
    """The daemon's own, as it is."""
    return Scheduler(scenario.profiles(), scenario.scheduler_limits())


OURS = "audiod"
FIFO = "fifo"
AFFINITY = "affinity"

POLICIES: dict[str, Callable[[Scenario], Policy]] = {
    OURS: daemon_scheduler,
    FIFO: FifoSwitching,
    AFFINITY: GreedyAffinity,
}
"""By the name that the table has for them."""
