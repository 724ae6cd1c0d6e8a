"""One host with a virtual clock: brings the trace's requests to a policy and carries out what it orders.

Takes the manager's place, and the processes': moves and work last as long as the scenario says. It decides nothing.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from audiod.residency.events import (
    Demand,
    DeviceMeasured,
    Event,
    ForkWorker,
    Grant,
    Instruction,
    MeasureDevice,
    Pause,
    Reject,
    Released,
    Requested,
    Resume,
    StartZygote,
    StopWorker,
    StopZygote,
    TimePassed,
    WorkerLoaded,
    WorkerMeasured,
    WorkerStopped,
    Yielded,
    ZygoteStarted,
    ZygoteStopped,
)
from simulation import traces
from simulation.scenario import Scenario
from simulation.traces import Arrival


class Policy(Protocol):
    """What audiod.residency.scheduler.Scheduler is to its manager."""

    @property
    def next_wakeup(self) -> float: ...

    def handle(self, event: Event, now: float) -> list[Instruction]: ...


class Stranded(Exception):
    """Requests wait, nothing is under way, and the policy waits for no time. The message has the numbers."""


@dataclass(slots=True)
class Request:
    """What became of one arrival. Times are of the virtual clock."""

    arrival: Arrival
    service_s: float
    piece_s: float
    """The part of that which nothing interrupts: all of it, or a segment."""
    granted_at: float = math.nan
    ended_at: float = math.nan
    refused: str = ""
    """Code of the error that it was answered with."""

    @property
    def wait_s(self) -> float:
        return self.granted_at - self.arrival.at


@dataclass(slots=True)
class History:
    """All that happened. Loads, turns and shares of time are of the measured stretch, `measured_s` long."""

    requests: list[Request]
    measured_s: float
    loads: int = 0
    turns_s: list[float] = field(default_factory=list)
    """For each load, how long the model had been waited for when it became ready."""
    moving_s: float = 0.0
    """Time in which a model was being loaded or parked."""
    working_s: float = 0.0
    """Time in which requests were at work: that of n at once counts n times."""
    events: int = 0
    handling_s: float = 0.0
    """Processor time that the policy took."""


@dataclass(slots=True)
class _Job:
    """A granted request. `epoch` tells an end that was overtaken by a pause."""

    remaining_s: float
    resumed_at: float
    segment_s: float
    done_s: float = 0.0
    epoch: int = 0
    running: bool = True


class Host:
    """One run. `arrivals` are in order of time."""

    def __init__(self, scenario: Scenario, policy: Policy, arrivals: Sequence[Arrival]) -> None:
        self.scenario = scenario
        self.policy = policy
        self.now = 0.0
        self._from, self._until = float(scenario.traffic.warm_up), float(scenario.traffic.duration)
        self.history = History([self._request(arrival) for arrival in arrivals], self._until - self._from)
        self._heap: list[tuple[float, int, Event | int, int]] = []
        self._pushed = 0
        self._jobs: dict[int, _Job] = {}
        self._waiting: dict[str, dict[int, float]] = {model: {} for model in scenario.models}
        self._moving = 0
        self._metered_at = 0.0
        self._answered = 0

    def run(self) -> History:
        """Until every request is answered. Raises Stranded where that will not happen."""
        requests = self.history.requests
        patience_s = self.scenario.limits.patience_s
        upcoming = 0
        while self._answered < len(requests):
            at = requests[upcoming].arrival.at if upcoming < len(requests) else math.inf
            happens = self._heap[0][0] if self._heap else math.inf
            if happens <= min(at, self.policy.next_wakeup):
                if happens == math.inf:
                    waiting = {model: len(queue) for model, queue in self._waiting.items() if queue}
                    raise Stranded(
                        f"at {self.now:.3f} s, with {len(self._jobs)} at work, these wait for ever: {waiting}"
                    )
                _, _, what, epoch = heapq.heappop(self._heap)
                self._meter(happens)
                if isinstance(what, int):
                    self._end(what, epoch)
                else:
                    self._happen(what)
            elif at <= self.policy.next_wakeup:
                self._meter(at)
                arrival = requests[upcoming].arrival
                self._waiting[arrival.model][upcoming] = at
                demand = Demand(arrival.size, arrival.priority)
                self.feed(Requested(upcoming, arrival.model, at + patience_s, demand))
                upcoming += 1
            else:
                self._meter(max(self.now, self.policy.next_wakeup))
                self.feed(TimePassed())
        return self.history

    def feed(self, event: Event) -> None:
        began = time.thread_time()
        instructions = self.policy.handle(event, self.now)
        self.history.handling_s += time.thread_time() - began
        self.history.events += 1
        for instruction in instructions:
            self.execute(instruction)

    def execute(self, instruction: Instruction) -> None:
        match instruction:
            case Grant(request):
                self._begin(request)
            case StartZygote(model):
                self._after(self.scenario.models[model].start, ZygoteStarted(model, self.scenario.models[model].parked))
            case ForkWorker(model):
                self._moving += 1
                self._after(self.scenario.models[model].load, WorkerLoaded(model, self.scenario.models[model].ready))
            case StopWorker(model):
                self._moving += 1
                self._after(self.scenario.models[model].park, WorkerStopped(model))
            case StopZygote(model):
                self._after(self.scenario.models[model].stop, ZygoteStopped(model))
            case Pause(request):
                self._pause(request)
            case Resume(request):
                self._resume(request)
            case Reject(request, error):
                self.history.requests[request].refused = error.code
                self._leave_queue(request)
                self._answered += 1
            case MeasureDevice(device):
                self._after(0.0, DeviceMeasured(device, self.scenario.devices[device], 0))

    def _request(self, arrival: Arrival) -> Request:
        service_s = traces.service_s(self.scenario, arrival)
        segment_s = float(self.scenario.models[arrival.model].segment)
        return Request(arrival, service_s, min(service_s, segment_s or service_s))

    # --- moves ------------------------------------------------------------------------------------------------------

    def _after(self, seconds: float, what: Event | int, epoch: int = 0) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (self.now + seconds, self._pushed, what, epoch))

    def _happen(self, event: Event) -> None:
        match event:
            case WorkerLoaded(model):
                self._moving -= 1
                if self._measured:
                    self.history.loads += 1
                    since = next(iter(self._waiting[model].values()), self.now)
                    self.history.turns_s.append(self.now - since)
            case WorkerStopped():
                self._moving -= 1
        self.feed(event)

    # --- work -------------------------------------------------------------------------------------------------------

    def _begin(self, request: int) -> None:
        served = self.history.requests[request]
        served.granted_at = self.now
        self._leave_queue(request)
        segment_s = self.scenario.models[served.arrival.model].segment
        job = self._jobs[request] = _Job(served.service_s, self.now, segment_s)
        self._after(job.remaining_s, request)

    def _pause(self, request: int) -> None:
        """Stop at the end of the segment that runs, unless the job ends with it."""
        job = self._jobs[request]
        ran_s = job.done_s + self.now - job.resumed_at
        border_s = math.ceil(ran_s / job.segment_s) * job.segment_s if job.segment_s else math.inf
        if border_s < job.done_s + job.remaining_s:
            job.epoch += 1
            self._after(border_s - ran_s, request, job.epoch)

    def _resume(self, request: int) -> None:
        job = self._jobs[request]
        if job.running:  # the pause had not come into effect
            self._progress(job)
        job.running = True
        job.resumed_at = self.now
        job.epoch += 1
        self._after(job.remaining_s, request, job.epoch)

    def _progress(self, job: _Job) -> None:
        ran_s = self.now - job.resumed_at
        job.done_s += ran_s
        job.remaining_s -= ran_s

    def _end(self, request: int, epoch: int) -> None:
        """What was planned for the job has come: its end, or the border where it is to pause."""
        job = self._jobs.get(request)
        if job is None or epoch != job.epoch:
            return
        self._progress(job)
        if job.remaining_s > 1e-9:
            job.running = False
            self.feed(Yielded(request))
            return
        del self._jobs[request]
        served = self.history.requests[request]
        served.ended_at = self.now
        self._answered += 1
        model = self.scenario.models[served.arrival.model]
        if model.work:
            peak_bytes = model.ready + int(model.work * served.arrival.size)
            self.feed(WorkerMeasured(served.arrival.model, model.ready, peak_bytes, served.arrival.size))
        self.feed(Released(request))

    def _leave_queue(self, request: int) -> None:
        del self._waiting[self.history.requests[request].arrival.model][request]

    # --- measuring --------------------------------------------------------------------------------------------------

    @property
    def _measured(self) -> bool:
        return self._from <= self.now < self._until

    def _meter(self, now: float) -> None:
        """Go on to `now`, and account for the time between."""
        passed_s = min(now, self._until) - max(self.now, self._from)
        if passed_s > 0:
            if self._moving:
                self.history.moving_s += passed_s
            self.history.working_s += passed_s * sum(job.running for job in self._jobs.values())
        self.now = now
