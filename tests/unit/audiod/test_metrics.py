"""Metrics of residency: what the scheduler decides, and what a scrape then says about it."""

from __future__ import annotations

from audiod.metrics import Metrics
from audiod.residency.events import (
    Cancelled,
    DeviceMeasured,
    Event,
    Instruction,
    Limits,
    LoadAsked,
    LoadFailed,
    MeasureDevice,
    ParkAsked,
    Profile,
    Released,
    Requested,
    StartFailed,
    TimePassed,
    UnloadAsked,
    WorkerDied,
    WorkerLoaded,
    WorkerStopped,
    ZygoteDied,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.footprint import Footprint
from audiod.residency.scheduler import Scheduler
from audioproto.errors import ModelFailed
from audioproto.types import Death


class Residency:
    """A scheduler of models `a` and `b`, of which the device has room for one, and the metrics that watch it."""

    def __init__(self) -> None:
        profiles = [
            Profile(model, Footprint(ready_bytes=60, parked_bytes=10), keep_alive_s=300.0, park_keep_alive_s=600.0)
            for model in ("a", "b")
        ]
        self.scheduler = Scheduler(profiles, Limits(devices={"cpu": 100}, host_bytes=100, max_switch_wait_s=0.0))
        self.metrics = Metrics()
        self.now = 0.0

    def feed(self, event: Event, at: float | None = None) -> list[Instruction]:
        self.now = self.now if at is None else at
        instructions = self.scheduler.handle(event, self.now)
        self.metrics.observe_step(event, instructions, self.now)
        for instruction in list(instructions):
            if isinstance(instruction, MeasureDevice):
                instructions += self.feed(DeviceMeasured(instruction.device, 0, 0))
        return instructions

    def load(self, model: str, request: int) -> None:
        """Have a request bring it up from nothing, in no time."""
        self.feed(Requested(request, model, self.now + 1000.0))
        self.feed(ZygoteStarted(model, 0))
        self.feed(WorkerLoaded(model, 0))

    def value(self, name: str, **labels: str) -> float | None:
        """The sample as a scrape has it; None where there is no such series."""
        self.metrics.look(self.scheduler, self.now, ready=True)
        return self.metrics.registry.get_sample_value(name, labels)

    def evictions(self, model: str) -> dict[tuple[str, str], float]:
        found = {
            (cause, to): self.value("audiod_evictions_total", model=model, cause=cause, to=to) or 0.0
            for cause in ("idle", "pressure", "operator", "failure")
            for to in ("parked", "unloaded")
        }
        return {key: count for key, count in found.items() if count}


def test_a_cold_switch_is_measured_from_the_request_and_its_steps_one_by_one() -> None:
    it = Residency()
    it.feed(Requested(1, "a", 1000.0), at=10.0)
    it.feed(ZygoteStarted("a", 0), at=14.0)
    it.feed(WorkerLoaded("a", 0), at=14.5)
    assert it.value("audiod_transition_seconds_sum", model="a", transition="start") == 4.0
    assert it.value("audiod_transition_seconds_sum", model="a", transition="load") == 0.5
    assert it.value("audiod_switch_seconds_sum", **{"model": "a", "from": "unloaded"}) == 4.5
    assert it.value("audiod_queue_wait_seconds_sum", model="a") == 4.5


def test_a_switch_from_parked_counts_the_wait_for_the_others_turn() -> None:
    it = Residency()
    it.load("a", 1)
    it.feed(ParkAsked(2, "a"))
    it.feed(Released(1))
    it.feed(WorkerStopped("a"))
    it.load("b", 3)
    it.feed(Requested(4, "a", 1000.0), at=100.0)
    it.feed(Released(3), at=103.0)
    it.feed(WorkerStopped("b"), at=103.25)
    it.feed(WorkerLoaded("a", 0), at=104.0)
    assert it.value("audiod_switch_seconds_sum", **{"model": "a", "from": "parked"}) == 4.0
    assert it.value("audiod_transition_seconds_sum", model="b", transition="park") == 0.25
    assert it.evictions("b") == {("pressure", "parked"): 1.0}


def test_an_abandoned_load_is_no_switch_because_nobody_waited_for_it() -> None:
    it = Residency()
    it.feed(Requested(1, "a", 1000.0))
    it.feed(ZygoteStarted("a", 0))
    it.feed(Cancelled(1))
    it.feed(WorkerLoaded("a", 0), at=7.0)
    assert it.value("audiod_transition_seconds_count", model="a", transition="load") == 1.0
    assert it.value("audiod_switch_seconds_count", **{"model": "a", "from": "unloaded"}) is None


def test_evictions_have_their_cause_and_where_they_lead() -> None:
    it = Residency()
    it.load("a", 1)
    it.feed(Released(1), at=0.0)
    it.feed(TimePassed(), at=300.0)
    it.feed(WorkerStopped("a"), at=300.0)
    assert it.evictions("a") == {("idle", "parked"): 1.0}
    it.feed(TimePassed(), at=900.0)
    it.feed(ZygoteStopped("a"), at=900.0)
    assert it.evictions("a") == {("idle", "parked"): 1.0, ("idle", "unloaded"): 1.0}
    it.load("b", 2)
    it.feed(UnloadAsked(3, "b", force=True))
    it.feed(ZygoteStopped("b"))
    assert it.evictions("b") == {("operator", "unloaded"): 1.0}
    it.load("b", 4)
    it.feed(WorkerDied("b", "the worker was killed by SIGKILL", Death.KILLED))
    assert it.evictions("b") == {("operator", "unloaded"): 1.0, ("failure", "parked"): 1.0}
    it.feed(ZygoteDied("b", "the zygote exited with status 1", Death.CRASHED))
    assert it.evictions("b")["failure", "unloaded"] == 1.0


def test_a_model_that_drains_for_another_and_need_not_was_not_evicted() -> None:
    it = Residency()
    it.load("a", 1)
    it.feed(Requested(2, "b", 1000.0))
    it.feed(ZygoteStarted("b", 0))
    assert it.value("audiod_model_state", model="a", state="draining") == 1.0
    it.feed(Cancelled(2))
    assert it.value("audiod_model_state", model="a", state="ready") == 1.0
    assert it.evictions("a") == {}


def test_deaths_and_failures_to_come_up_are_counted_by_reason() -> None:
    it = Residency()
    assert it.value("audiod_worker_deaths_total", model="a", reason="start_failed") == 0.0
    it.feed(LoadAsked(1, "a"))
    it.feed(StartFailed("a", ModelFailed("no library")))
    it.feed(LoadAsked(2, "a"))
    it.feed(ZygoteStarted("a", 0))
    it.feed(LoadFailed("a", ModelFailed("no memory")))
    it.feed(ZygoteStopped("a"))
    it.load("b", 3)
    it.feed(WorkerDied("b", "it hung", Death.HUNG))
    assert it.value("audiod_worker_deaths_total", model="a", reason="start_failed") == 1.0
    assert it.value("audiod_worker_deaths_total", model="a", reason="load_failed") == 1.0
    assert it.value("audiod_worker_deaths_total", model="b", reason="hung") == 1.0


def test_clients_that_leave_are_counted_by_how_far_they_had_come() -> None:
    it = Residency()
    it.load("a", 1)
    it.feed(Requested(2, "a", 1000.0))
    it.feed(Cancelled(2))
    it.feed(Released(2, abandoned=True))  # what the manager says of everyone who leaves the queue
    it.feed(Released(1, abandoned=True))
    assert it.value("audiod_cancelled_requests_total", model="a", stage="queued") == 1.0
    assert it.value("audiod_cancelled_requests_total", model="a", stage="running") == 1.0


def test_a_scrape_shows_the_queue_the_leases_and_the_bytes_as_they_are() -> None:
    it = Residency()
    it.load("a", 1)
    it.feed(Requested(2, "a", 1000.0), at=20.0)
    it.now = 32.0
    assert it.value("audiod_leases", model="a") == 1.0
    assert it.value("audiod_queue_requests", model="a") == 1.0
    assert it.value("audiod_queue_oldest_seconds", model="a") == 12.0
    assert it.value("audiod_resident_bytes", model="a", device="cpu") == 60.0
    assert it.value("audiod_budget_bytes", device="cpu") == 100.0
    assert it.value("audiod_parked_bytes", model="a") == 10.0
    assert it.value("audiod_parked_bytes", model="b") == 0.0


def test_memory_that_does_not_come_back_shows_until_the_next_stop() -> None:
    it = Residency()
    it.load("a", 1)
    it.feed(ParkAsked(2, "a"))
    it.feed(Released(1))
    it.feed(WorkerStopped("a", residue_bytes=7))
    assert it.value("audiod_reclaim_residue_bytes", model="a") == 7.0
    it.feed(UnloadAsked(3, "a"))
    it.feed(ZygoteStopped("a"))
    assert it.value("audiod_reclaim_residue_bytes", model="a") == 0.0


def test_a_name_that_is_not_configured_makes_no_series() -> None:
    it = Residency()
    it.value("audiod_ready")
    before = it.metrics.render("")[0]
    for number in range(100):
        it.feed(Requested(number, f"made-up-{number}", 1000.0))
    it.value("audiod_ready")
    after = it.metrics.render("")[0]
    assert b"made-up" not in after
    assert after.count(b"\n") == before.count(b"\n")
