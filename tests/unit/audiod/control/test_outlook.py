"""What `audioctl why` promises about a model is what the scheduler then does."""

from __future__ import annotations

import math

from audiod.control.outlook import Outlook, outlook
from audiod.residency.events import (
    DeviceMeasured,
    DrainAsked,
    Event,
    Grant,
    Limits,
    LoadAsked,
    ParkAsked,
    Profile,
    Requested,
    StartFailed,
    WorkerLoaded,
    WorkerStopped,
    ZygoteStarted,
)
from audiod.residency.footprint import Footprint
from audiod.residency.scheduler import Scheduler
from audioproto.errors import ModelFailed
from audioproto.types import Residency

MIB = 2**20


class Host:
    """A scheduler with three models: `a` and `b` do not fit together, `big` fits nowhere."""

    def __init__(self) -> None:
        sizes = {"a": 60, "b": 60, "big": 120}
        profiles = [Profile(name, Footprint(size * MIB, 40 * MIB)) for name, size in sizes.items()]
        self.scheduler = Scheduler(profiles, Limits({"cpu": 100 * MIB}, 900 * MIB, max_switch_wait_s=20.0))
        self.now = 1000.0
        self.requests = 0

    def happens(self, *events: Event, after_s: float = 0.0) -> None:
        self.now += after_s
        for event in events:
            self.granted = [i for i in self.scheduler.handle(event, self.now) if isinstance(i, Grant)]

    def asks(self, model: str) -> None:
        self.requests += 1
        self.happens(Requested(self.requests, model, math.inf))

    def bring_up(self, model: str) -> None:
        """By order: start 8 s, load 3 s."""
        self.happens(LoadAsked(900, model))
        self.happens(ZygoteStarted(model, 0), after_s=8)
        self.happens(WorkerLoaded(model, 0), after_s=3)

    def told(self, model: str) -> Outlook:
        return outlook(self.scheduler, model, self.now)


def test_a_model_that_was_never_there_needs_a_start_and_a_load() -> None:
    told = Host().told("a")
    assert told.steps == [
        "its zygote must be started",
        "there is room: 40 MiB of 900 MiB that are free in host memory",
        "it must be loaded to cpu",
        "there is room: 60 MiB of 100 MiB that are free in cpu",
    ]
    assert told.hint == "audioctl load a"


def test_it_says_that_a_model_is_staged() -> None:
    host = Host()
    host.scheduler = Scheduler(
        [Profile("a", Footprint(60 * MIB, 40 * MIB), staged_bytes=60 * MIB)], Limits({"cpu": 100 * MIB}, 900 * MIB)
    )
    assert host.told("a").steps[2] == "it must be loaded to cpu, staged, for as a whole it has no room there"
    host.bring_up("a")
    assert host.told("a").steps == ["it is ready, staged, and has nothing to do"]


def test_it_knows_how_long_the_steps_took_before() -> None:
    host = Host()
    host.bring_up("a")
    host.happens(ParkAsked(1, "a"), after_s=60)
    host.happens(WorkerStopped("a"), after_s=1)
    told = host.told("a")
    assert told.steps[0] == "it must be loaded to cpu (the last time that took 3.0s)"
    assert told.estimate_s == 3.0
    assert host.scheduler.models["a"].footprint.start_s == 8.0


def test_a_ready_model_serves_at_once_until_it_is_busy() -> None:
    host = Host()
    host.bring_up("a")
    told = host.told("a")
    assert (told.steps, told.estimate_s) == (["it is ready, and has nothing to do"], 0.0)
    host.asks("a")
    host.asks("a")
    told = host.told("a")
    assert told.steps == ["it is ready, with 1 request at work, and 1 request waiting before a new one"]
    assert told.estimate_s is not None
    assert told.estimate_s > 0


def test_who_would_have_to_go_then_goes() -> None:
    host = Host()
    host.bring_up("a")
    host.happens(after_s=30)
    told = host.told("b")
    assert told.steps[-2:] == [
        "60 MiB are needed, and 40 MiB are free in cpu",
        "a, idle for 30s, would be parked for it, which frees 60 MiB",
    ]
    host.happens(LoadAsked(2, "b"))
    host.happens(ZygoteStarted("b", 0), DeviceMeasured("cpu", 0, 0))
    assert host.scheduler.models["a"].state is Residency.PARKING


def test_a_busy_model_keeps_its_place_for_as_long_as_is_told() -> None:
    host = Host()
    host.bring_up("a")
    host.asks("a")
    host.happens(after_s=100)
    told = host.told("b")
    assert told.steps[-1] == "a may keep at work for another 20s"


def test_what_it_would_do_changes_nothing() -> None:
    host = Host()
    host.bring_up("a")
    before = repr(host.scheduler.models)
    for model in ("a", "b", "big"):
        host.told(model)
    assert repr(host.scheduler.models) == before


def test_a_model_that_can_never_fit_is_told_with_the_numbers() -> None:
    told = Host().told("big")
    assert told.steps[-1] == "big needs 120 MiB on cpu; the budget is 100 MiB"
    assert told.estimate_s is None
    assert "audioctl reload" in told.hint


def test_a_failed_model_says_until_when_and_what_to_type() -> None:
    host = Host()
    host.happens(LoadAsked(1, "a"))
    host.happens(StartFailed("a", ModelFailed("no library")))
    told = host.told("a")
    assert told.steps[0] == "requests are refused for another 5.0s, because of the failure"
    assert told.hint == "audioctl load a"
    host.happens(after_s=6)
    assert "refused" not in host.told("a").steps[0]


def test_what_is_under_way_is_told_with_its_time() -> None:
    host = Host()
    host.asks("a")
    host.happens(after_s=2)
    assert host.told("a").steps[0] == "its zygote is being started, for 2.0s so far"
    host.happens(ZygoteStarted("a", 0))
    host.happens(after_s=0.5)
    assert host.told("a").steps == ["it is being loaded, for 500ms so far"]


def test_a_drain_refuses_everything() -> None:
    host = Host()
    host.happens(DrainAsked(1))
    told = host.told("a")
    assert (told.estimate_s, told.hint) == (None, "audioctl undrain")
