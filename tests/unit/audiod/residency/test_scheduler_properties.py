"""The scheduler under random traces: whatever happens, in whatever order, its promises hold.

The trace plays the manager's part: it carries instructions out with random delays, failures and deaths.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter

import pytest

from audiod.residency import budget
from audiod.residency.events import (
    HOST,
    Cancelled,
    Demand,
    DeviceMeasured,
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
    MeasureDevice,
    ParkAsked,
    Pause,
    Profile,
    Reconfigured,
    Reject,
    Released,
    Requested,
    Resume,
    StartFailed,
    StartZygote,
    StopWorker,
    StopZygote,
    TimePassed,
    UnloadAsked,
    WorkerDied,
    WorkerLoaded,
    WorkerMeasured,
    WorkerStopped,
    Yielded,
    ZygoteDied,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.footprint import Footprint
from audiod.residency.scheduler import Scheduler
from audioproto.errors import AudiodError, BadRequest, ModelFailed, OutOfMemory
from audioproto.types import Death, Priority
from audioproto.types import Residency as S

MIB = 2**20

TRACES = 1500
EVENTS_A_TRACE = 120


class Trace:
    """One random history. `step` lets one thing happen; `finish` lets everything run out."""

    def __init__(self, seed: int, *, steady: bool = True) -> None:
        """`steady`: models are as large as they say, and the devices are ours alone."""
        self.random = random.Random(seed)
        self.steady = steady
        self.now = 0.0
        self.limits = Limits(
            devices={"cpu": 100 * MIB, "cuda:0": 100 * MIB},
            host_bytes=self.random.choice([100, 160, 400]) * MIB,
            queue_requests=self.random.choice([3, 50]),
            max_switch_wait_s=self.random.choice([0.0, 5.0, 20.0]),
            recycle=self.random.random() < 0.5,
        )
        self.profiles = [
            Profile(
                model=f"m{n}",
                footprint=Footprint(
                    ready_bytes=self.random.choice([20, 50, 60, 100, 130]) * MIB,
                    parked_bytes=self.random.choice([10, 40, 90]) * MIB,
                    load_s=self.random.choice([0.0, 3.0]),
                    peaks=self.random.choice([{}, {0: 5 * MIB}, {0: 5 * MIB, 6: 30 * MIB}]),
                ),
                device=self.random.choice(["cpu", "cuda:0", "cuda:0"]),
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
        self.measuring: list[str] = []
        self.zygotes: set[str] = set()
        self.workers: set[str] = set()
        self.answers: Counter[int] = Counter()
        self.errors: dict[int, AudiodError] = {}
        self.asked: set[int] = set()
        self.cancelled: set[int] = set()
        self.leases: dict[int, str] = {}
        self.pausing: set[int] = set()
        self.paused: set[int] = set()
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
            case Pause(request):
                assert request in self.leases, "what does not run cannot be paused"
                assert request not in self.pausing | self.paused, "paused twice"
                self.pausing.add(request)
            case Resume(request):
                assert request in self.paused, "resumed without having been paused"
                self.paused.discard(request)
            case MeasureDevice(device):
                assert device not in self.measuring, "measured twice at a time"
                self.measuring.append(device)
            case Reject(request, error):
                self.answers[request] += 1
                self.errors[request] = error
            case Finish(operation, _):
                self.finished[operation] += 1

    def check(self) -> None:
        models = self.scheduler.models.values()
        if self.steady:
            for resource in (HOST, *self.limits.devices):
                held = budget.reserved(models, resource)
                assert held <= budget.capacity(self.limits, {}, resource), f"over budget: {resource}"
        assert all(count == 1 for count in self.answers.values()), "a request was answered twice"
        assert all(count == 1 for count in self.finished.values()), "an operation was finished twice"
        for state in models:
            assert set(state.leases) == {r for r, m in self.leases.items() if m == state.model}, "a lease is not known"
            if state.leases:
                assert state.model in self.workers, "a lease outlived its worker"
            if state.state is S.READY and state.target is None:
                promised = budget.holds(state, state.device)
                assert promised >= state.profile.staged_bytes, "what was set aside for a staged model is given away"
            running = set(state.leases) - self.paused
            assert len(running) <= state.profile.concurrency, "more at work than there are places"
            if state.state is S.READY and state.target is None and len(running) < state.profile.concurrency:
                assert not set(state.leases) & self.paused, "a paused lease does not go on though there is a place"
                if (head := state.queue.head) is not None:
                    need = self.scheduler.placement.more_bytes(state, head.demand)
                    taken = self.scheduler.placement.room(state, state.device, need, self.now).taken
                    assert not taken, "what could be granted was not"
        waiting = {waiter.request for state in models for waiter in state.queue}
        assert waiting == self.asked - self.cancelled - set(self.answers), "a request is neither answered nor waiting"
        assert set(self.scheduler._step.model_of) == waiting | set(self.leases), "a stale request is remembered"

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
            case ForkWorker() if bad:
                self.workers.discard(model)
                error = self.random.choice([ModelFailed("bad weights"), OutOfMemory("no memory")])
                self.feed(LoadFailed(model, error))
            case ForkWorker():
                self.feed(WorkerLoaded(model, 0 if self.steady else self.random.choice([0, 10, 60]) * MIB))
            case StopWorker():
                self.workers.discard(model)
                self.feed(WorkerStopped(model))
            case StopZygote():
                self.lose(model)
                self.feed(ZygoteStopped(model))

    def lose(self, model: str) -> None:
        self.zygotes.discard(model)
        self.workers.discard(model)

    def end_leases(self, ended: set[int]) -> None:
        for request in ended:
            del self.leases[request]
        self.pausing -= ended
        self.paused -= ended

    def release(self, request: int, *, out_of_memory: bool = False) -> None:
        self.end_leases({request})
        self.feed(Released(request, out_of_memory=out_of_memory))

    def measured(self) -> None:
        device = self.measuring.pop(0)
        others = 0 if self.steady else self.random.choice([0, 30, 60]) * MIB
        total = 0 if self.random.random() < 0.1 else 100 * MIB
        self.feed(DeviceMeasured(device, total, others))

    def demand(self) -> Demand:
        keep = self.random.choice([None, None, None, 0.0, -1.0, 10.0])
        size = self.random.choice([0.0, 0.5, 3.0, 60.0, 3600.0])
        return Demand(size, self.random.choice(list(Priority)), keep, keep)

    def step(self) -> None:
        self.now += self.random.choice([0.0, 0.1, 1.0, 10.0])
        if self.now >= self.scheduler.next_wakeup:
            self.feed(TimePassed())
        model = self.random.choice(self.profiles).model
        choice = self.random.random()
        self.number += 1
        if choice < 0.35:
            self.asked.add(self.number)
            deadline = self.now + self.random.choice([0.5, 30.0, 300.0])
            self.feed(Requested(self.number, model, deadline, self.demand()))
        elif choice < 0.60 and self.under_way:
            self.complete(self.random.choice(sorted(self.under_way)), self.random.random())
        elif choice < 0.64 and self.measuring:
            self.measured()
        elif choice < 0.68 and self.pausing:
            request = self.random.choice(sorted(self.pausing))
            self.pausing.discard(request)
            self.paused.add(request)
            self.feed(Yielded(request))
        elif choice < 0.70 and not self.steady and model in self.workers:
            rest = self.random.choice([10, 50, 90, 150]) * MIB
            self.feed(WorkerMeasured(model, rest, rest + self.random.choice([-5, 0, 20]) * MIB, 3.0))
        elif choice < 0.78 and self.leases:
            request = self.random.choice(sorted(self.leases.keys() - self.paused) or sorted(self.leases))
            self.release(request, out_of_memory=self.random.random() < 0.1)
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
            if self.scheduler.models[model].state in (S.READY, S.DRAINING):
                self.end_leases({r for r, m in self.leases.items() if m == model})
            self.feed(UnloadAsked(self.number, model, force=True))
        elif choice < 0.96 and model not in self.under_way and model in self.zygotes:
            self.end_leases({r for r, m in self.leases.items() if m == model})
            if model in self.workers and self.random.random() < 0.7:
                self.workers.discard(model)
                self.feed(WorkerDied(model, "killed", Death.KILLED))
            else:
                self.lose(model)
                self.feed(ZygoteDied(model, "killed", Death.KILLED))
        elif choice < 0.97:
            self.operations.add(self.number)
            self.feed(DrainAsked(self.number))
        elif choice < 0.985:
            self.feed(DrainEnded())
        elif not self.steady:
            self.restage(model)

    def restage(self, model: str) -> None:
        """A reload gives the model more or less of the device."""
        number = next(number for number, profile in enumerate(self.profiles) if profile.model == model)
        staged_bytes = self.random.choice([0, 30, 70]) * MIB
        footprint = Footprint(staged_bytes or 90 * MIB, 10 * MIB)
        self.profiles[number] = dataclasses.replace(
            self.profiles[number], footprint=footprint, staged_bytes=staged_bytes
        )
        self.feed(Reconfigured(tuple(self.profiles), self.limits))

    def finish(self) -> None:
        """No new work: everything succeeds, leases end, and time passes until nobody waits."""
        for _ in range(10_000):
            if self.under_way:
                self.complete(min(self.under_way), luck=1.0)
            elif self.measuring:
                self.measured()
            elif self.leases:
                self.now += 1.0
                running = sorted(self.leases.keys() - self.paused)
                assert running, "all that is left stands still"
                self.release(running[0])
            elif self.scheduler.queue_length or set(self.finished) != self.operations:
                assert self.scheduler.next_wakeup < math.inf, (
                    "someone is stranded: nothing under way, no time to wait for"
                )
                self.now = max(self.now, self.scheduler.next_wakeup)
                self.feed(TimePassed())
            else:
                return
        raise AssertionError("it never came to rest")


def run(seed: int, *, steady: bool) -> Trace:
    trace = Trace(seed, steady=steady)
    for _ in range(EVENTS_A_TRACE):
        trace.step()
    trace.finish()
    return trace


@pytest.mark.parametrize("steady", [True, False], ids=["steady", "growing, with neighbours"])
@pytest.mark.parametrize("block", range(10))
def test_every_promise_holds_over_random_traces(block: int, steady: bool) -> None:
    size = TRACES // 10
    for seed in range(block * size, (block + 1) * size):
        try:
            trace = run(seed, steady=steady)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        assert set(trace.finished) == trace.operations, f"seed {seed}: an operation was never finished"
        assert trace.asked == set(trace.answers) | trace.cancelled, f"seed {seed}: a request was never answered"


def test_the_traces_reach_every_state_and_every_kind_of_answer() -> None:
    states: set[S] = set()
    refusals: set[str] = set()
    told: set[type[Instruction]] = set()

    class Watching(Trace):
        def execute(self, instruction: Instruction) -> None:
            super().execute(instruction)
            told.add(type(instruction))
            states.update(state.state for state in self.scheduler.models.values())
            if isinstance(instruction, Reject):
                refusals.add(instruction.error.code)

    for seed in range(200):
        trace = Watching(seed, steady=seed % 2 == 0)
        for _ in range(EVENTS_A_TRACE):
            trace.step()
    assert states == set(S)
    assert refusals >= {"queue_full", "queue_timeout", "draining", "model_failed", "model_too_large", "out_of_memory"}
    assert told >= {Pause, Resume, MeasureDevice}


def test_an_operator_learns_that_a_later_order_overtook_the_first() -> None:
    scheduler = Scheduler([Profile("m", Footprint(1, 1))], Limits({"cpu": 10}, 10))
    scheduler.handle(LoadAsked(1, "m"), 0.0)
    out = scheduler.handle(UnloadAsked(2, "m"), 0.0)
    overtaken = [i for i in out if isinstance(i, Finish) and i.operation == 1]
    assert isinstance(overtaken[0].error, BadRequest)
