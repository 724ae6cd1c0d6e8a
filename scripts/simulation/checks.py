"""The scheduler's promises, asserted while it is simulated: `scripts/simulate --check`.

Keeps books of its own from the instructions, for the scheduler's sums may be what is wrong.
"""

from __future__ import annotations

from audiod.residency.events import (
    Event,
    ForkWorker,
    Grant,
    Instruction,
    Pause,
    Reject,
    Released,
    Requested,
    Resume,
    StartZygote,
    StopWorker,
    StopZygote,
    WorkerLoaded,
    WorkerStopped,
    Yielded,
    ZygoteStarted,
    ZygoteStopped,
)
from simulation.host import Policy
from simulation.scenario import Scenario


class Broken(AssertionError):
    """A promise was not kept. The message says when, and which."""


class Checked:
    """A policy in a policy's place, with every event and instruction looked at."""

    def __init__(self, scenario: Scenario, policy: Policy) -> None:
        self._scenario = scenario
        self._policy = policy
        self._now = 0.0
        self._deadlines: dict[int, float] = {}
        """Of requests that wait."""
        self._models: dict[int, str] = {}
        """Of requests that have not been answered, or are at work."""
        self._leases: dict[int, bool] = {}
        """Requests that were granted, and whether they are at work rather than paused."""
        self._pausing: set[int] = set()
        self._busy: set[str] = set()
        """Models that something is being done to."""
        self._zygotes: set[str] = set()
        self._workers: set[str] = set()

    @property
    def next_wakeup(self) -> float:
        return self._policy.next_wakeup

    def handle(self, event: Event, now: float) -> list[Instruction]:
        self._must(now >= self._now, "time goes on")
        self._now = now
        self._note(event)
        instructions = self._policy.handle(event, now)
        for instruction in instructions:
            self._look(instruction)
        overdue = [request for request, deadline in self._deadlines.items() if deadline <= now]
        self._must(not overdue, f"nobody waits beyond the deadline: {overdue}")
        self._must(self.next_wakeup > now, "no time is waited for that has come")
        return instructions

    def _must(self, kept: bool, promise: str) -> None:
        if not kept:
            raise Broken(f"at {self._now:.6f} s: {promise}")

    def _note(self, event: Event) -> None:
        match event:
            case Requested(request, model, deadline):
                self._deadlines[request] = deadline
                self._models[request] = model
            case Released(request):
                del self._leases[request], self._models[request]
                self._pausing.discard(request)
            case Yielded(request):
                self._pausing.discard(request)
                self._leases[request] = False
            case ZygoteStarted(model) | WorkerLoaded(model):
                self._busy.remove(model)
            case WorkerStopped(model):
                self._busy.remove(model)
                self._workers.remove(model)
            case ZygoteStopped(model):
                self._busy.remove(model)
                self._workers.discard(model)
                self._zygotes.remove(model)

    def _look(self, instruction: Instruction) -> None:
        match instruction:
            case Grant(request, model):
                self._must(self._deadlines.pop(request, None) is not None, f"request {request} is answered once")
                self._must(self._models[request] == model, f"request {request} gets the model that it asked for")
                self._must(model in self._workers and model not in self._busy, f"{model} is granted when it is ready")
                self._leases[request] = True
                self._check_concurrency(model)
            case Reject(request):
                self._must(self._deadlines.pop(request, None) is not None, f"request {request} is answered once")
                del self._models[request]
            case Pause(request):
                self._must(self._leases.get(request, False), f"request {request} is at work when it is paused")
                self._pausing.add(request)
            case Resume(request):
                self._must(request in self._leases, f"request {request} is resumed while it is leased")
                self._pausing.discard(request)
                self._leases[request] = True
                self._check_concurrency(self._models[request])
            case StartZygote(model):
                self._begin(model)
                self._must(model not in self._zygotes, f"{model} has one zygote")
                self._zygotes.add(model)
                held = sum(self._scenario.models[name].parked for name in self._zygotes)
                self._must(held <= self._scenario.park_budget, "zygotes stay within the park budget")
            case ForkWorker(model):
                self._begin(model)
                self._must(model in self._zygotes and model not in self._workers, f"{model} has one worker")
                self._workers.add(model)
                self._check_device(self._scenario.models[model].device)
            case StopWorker(model) | StopZygote(model):
                self._begin(model)
                leased = [request for request in self._leases if self._models[request] == model]
                self._must(not leased, f"{model} is not evicted while it serves")

    def _begin(self, model: str) -> None:
        self._must(model not in self._busy, f"one thing at a time is done to {model}")
        self._busy.add(model)

    def _check_concurrency(self, model: str) -> None:
        at_work = sum(running for request, running in self._leases.items() if self._models[request] == model)
        self._must(at_work <= self._scenario.models[model].concurrency, f"{model} serves no more at once than it may")

    def _check_device(self, device: str) -> None:
        models = (self._scenario.models[name] for name in self._workers)
        held = sum(model.ready for model in models if model.device == device)
        self._must(held <= self._scenario.devices[device], f"workers stay within the budget of {device}")
