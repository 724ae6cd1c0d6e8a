"""The scheduler under random traces: whatever happens, in whatever order, its promises hold.

The trace plays the manager's part: it carries instructions out with random delays, failures and deaths.
"""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from audiod.residency import budget
from audiod.residency.events import (
    Cancelled,
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
from audiod.residency.scheduler import Scheduler
from audioproto.errors import BadRequest, ModelFailed
from audioproto.types import Death
from audioproto.types import Residency as S

TRACES = 2500
EVENTS_A_TRACE = 120


class Trace:
    """One random history. `step` lets one thing happen; `finish` lets everything run out."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.limits = Limits(
            device_bytes=100,
            host_bytes=self.random.choice([100, 160, 400]),
            queue_requests=self.random.choice([3, 50]),
            max_switch_wait_s=self.random.choice([0.0, 5.0, 20.0]),
        )
        self.profiles = [
            Profile(
                model=f"m{n}",
                ready_bytes=self.random.choice([20, 50, 60, 100, 130]),
                parked_bytes=self.random.choice([10, 40, 90]),
                keep_alive_s=self.random.choice([-1.0, 0.0, 30.0]),
                park_keep_alive_s=self.random.choice([-1.0, 0.0, 60.0]),
                pinned=self.random.random() < 0.1,
                concurrency=self.random.choice([1, 1, 3]),
            )
            for n in range(self.random.randint(1, 4))
        ]
        self.scheduler = Scheduler(self.profiles, self.limits)
        self.number = 0
        self.under_way: dict[str, Instruction] = {}  # model -> the one operation on its processes
        self.zygotes: set[str] = set()
        self.workers: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.asked: set[int] = set()
        self.cancelled: set[int] = set()
        self.leases: dict[int, str] = {}
        self.operations: set[int] = set()
        self.finished: Counter[int] = Counter()

    def feed(self, event: Event) -> None:
        for instruction in self.scheduler.handle(event, self.now):
            self.execute(instruction)
        self.check()

    def execute(self, instruction: Instruction) -> None:
        match instruction:
            case StartZygote(model):
                assert model not in self.under_way
                assert model not in self.zygotes
                self.under_way[model] = instruction
                self.zygotes.add(model)
            case ForkWorker(model):
                assert model not in self.under_way
                assert model in self.zygotes
                assert model not in self.workers
                self.under_way[model] = instruction
                self.workers.add(model)
            case StopWorker(model):
                assert model not in self.under_way
                assert model in self.workers
                assert model not in self.leases.values(), "a leased model was evicted"
                self.under_way[model] = instruction
            case StopZygote(model):
                assert not isinstance(self.under_way.get(model), StopWorker | StopZygote)
                assert model not in self.leases.values(), "a leased model was stopped"
                self.under_way[model] = instruction
            case Grant(request, model):
                self.answers[request] += 1
                assert model in self.workers
                assert model not in self.under_way
                self.leases[request] = model
            case Reject(request, _):
                self.answers[request] += 1
            case Finish(operation, _):
                self.finished[operation] += 1

    def check(self) -> None:
        models = self.scheduler.models.values()
        for resource in Resource:
            assert budget.reserved(models, resource) <= budget.capacity(self.limits, resource), "over budget"
        assert all(count == 1 for count in self.answers.values()), "a request was answered twice"
        assert all(count == 1 for count in self.finished.values()), "an operation was finished twice"
        for state in models:
            assert set(state.leases) == {r for r, m in self.leases.items() if m == state.model}, "a lease is not known"
            if state.leases:
                assert state.model in self.workers, "a lease outlived its worker"
            assert len(state.leases) <= state.profile.concurrency
        waiting = {request for state in models for request in state.waiters}
        assert waiting == self.asked - self.cancelled - set(self.answers), "a request is neither answered nor waiting"
        assert set(self.scheduler._model_of) == waiting | set(self.leases), "a stale request is remembered"

    def complete(self, model: str, luck: float) -> None:
        """The operation under way on `model` ends, well or (below `luck` 0.15) badly."""
        bad = luck < 0.15
        match self.under_way.pop(model):
            case StartZygote():
                if bad:
                    self.zygotes.discard(model)
                self.feed(StartFailed(model, ModelFailed("no library")) if bad else ZygoteStarted(model, 0))
            case ForkWorker() if bad and luck < 0.05:
                self.lose(model)
                self.feed(ZygoteDied(model, "killed while loading", Death.KILLED))
            case ForkWorker():
                if bad:
                    self.workers.discard(model)
                self.feed(LoadFailed(model, ModelFailed("no memory")) if bad else WorkerLoaded(model, 0))
            case StopWorker():
                self.workers.discard(model)
                self.feed(WorkerStopped(model))
            case StopZygote():
                self.lose(model)
                self.feed(ZygoteStopped(model))

    def lose(self, model: str) -> None:
        self.zygotes.discard(model)
        self.workers.discard(model)

    def step(self) -> None:
        self.now += self.random.choice([0.0, 0.1, 1.0, 10.0])
        if self.now >= self.scheduler.next_wakeup:
            self.feed(TimePassed())
        model = self.random.choice(self.profiles).model
        choice = self.random.random()
        self.number += 1
        if choice < 0.35:
            self.asked.add(self.number)
            self.feed(Requested(self.number, model, self.now + self.random.choice([0.5, 30.0, 300.0])))
        elif choice < 0.60 and self.under_way:
            self.complete(self.random.choice(sorted(self.under_way)), self.random.random())
        elif choice < 0.78 and self.leases:
            request = self.random.choice(sorted(self.leases))
            del self.leases[request]
            self.feed(Released(request))
        elif choice < 0.82:
            waiting = sorted(self.asked - self.cancelled - set(self.answers))
            if waiting:
                request = self.random.choice(waiting)
                self.cancelled.add(request)
                self.feed(Cancelled(request))
        elif choice < 0.90:
            self.operations.add(self.number)
            orders: list[Event] = [
                LoadAsked(self.number, model),
                ParkAsked(self.number, model),
                UnloadAsked(self.number, model),
            ]
            self.feed(self.random.choice(orders))
        elif choice < 0.92:
            self.operations.add(self.number)
            self.leases = {r: m for r, m in self.leases.items() if m != model}
            self.feed(UnloadAsked(self.number, model, force=True))
        elif choice < 0.96 and model not in self.under_way and model in self.zygotes:
            self.leases = {r: m for r, m in self.leases.items() if m != model}
            if model in self.workers and self.random.random() < 0.7:
                self.workers.discard(model)
                self.feed(WorkerDied(model, "killed", Death.KILLED))
            else:
                self.lose(model)
                self.feed(ZygoteDied(model, "killed", Death.KILLED))
        elif choice < 0.97:
            self.operations.add(self.number)
            self.feed(DrainAsked(self.number))
        elif choice < 0.99:
            self.feed(DrainEnded())

    def finish(self) -> None:
        """No new work: everything succeeds, leases end, and time passes until nobody waits."""
        for _ in range(10_000):
            if self.under_way:
                self.complete(min(self.under_way), luck=1.0)
            elif self.leases:
                request = min(self.leases)
                del self.leases[request]
                self.now += 1.0
                self.feed(Released(request))
            elif self.scheduler.queue_length or set(self.finished) != self.operations:
                assert self.scheduler.next_wakeup < math.inf, (
                    "someone is stranded: nothing under way, no time to wait for"
                )
                self.now = max(self.now, self.scheduler.next_wakeup)
                self.feed(TimePassed())
            else:
                return
        raise AssertionError("it never came to rest")


def run(seed: int) -> Trace:
    trace = Trace(seed)
    for _ in range(EVENTS_A_TRACE):
        trace.step()
    trace.finish()
    return trace


@pytest.mark.parametrize("block", range(10))
def test_every_promise_holds_over_random_traces(block: int) -> None:
    size = TRACES // 10
    for seed in range(block * size, (block + 1) * size):
        try:
            trace = run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        assert set(trace.finished) == trace.operations, f"seed {seed}: an operation was never finished"
        assert trace.asked == set(trace.answers) | trace.cancelled, f"seed {seed}: a request was never answered"


def test_the_traces_reach_every_state_and_every_kind_of_answer() -> None:
    states: set[S] = set()
    refusals: set[str] = set()

    class Watching(Trace):
        def execute(self, instruction: Instruction) -> None:
            super().execute(instruction)
            states.update(state.state for state in self.scheduler.models.values())
            if isinstance(instruction, Reject):
                refusals.add(instruction.error.code)

    for seed in range(200):
        trace = Watching(seed)
        for _ in range(EVENTS_A_TRACE):
            trace.step()
    assert states == set(S)
    assert refusals >= {"queue_full", "queue_timeout", "draining", "model_failed", "model_too_large"}


def test_an_operator_learns_that_a_later_order_overtook_the_first() -> None:
    scheduler = Scheduler([Profile("m", 1, 1)], Limits(10, 10))
    scheduler.handle(LoadAsked(1, "m"), 0.0)
    out = scheduler.handle(UnloadAsked(2, "m"), 0.0)
    overtaken = [i for i in out if isinstance(i, Finish) and i.operation == 1]
    assert isinstance(overtaken[0].error, BadRequest)
