"""The virtual host: policies on traces small enough to follow by hand, pauses, and what it does when nobody decides."""

from __future__ import annotations

import math

import pytest

from audiod.residency.events import (
    Event,
    ForkWorker,
    Grant,
    Instruction,
    Pause,
    Requested,
    Resume,
    StartZygote,
    WorkerLoaded,
    Yielded,
    ZygoteStarted,
)
from audiod.units import Duration
from simulation import run, scenario
from simulation.host import History, Host, Stranded
from simulation.policies import AFFINITY, FIFO, OURS
from simulation.scenario import Scenario
from simulation.traces import Arrival


def two_models(**limits: object) -> Scenario:
    """Start 6 s, load 5 s, park 1 s, service 2 s; the device holds one of them."""
    return scenario.load("alternating").with_traffic(warm_up=Duration(0)).with_limits(**limits)


def asked(*requests: tuple[float, str]) -> list[Arrival]:
    names = {"t": "transcriber", "s": "speaker"}
    return [Arrival(at, names[model]) for at, model in requests]


def grants(history: History) -> list[float]:
    return [round(request.granted_at, 6) for request in history.requests]


def test_fifo_switches_for_every_request_in_turn() -> None:
    history = run.replay(two_models(), asked((0, "t"), (1, "s"), (2, "t")), FIFO, check=True)
    # start 6, load 5; served till 13; park 1, load 5; served till 21; park, load.
    assert grants(history) == [11, 19, 27]
    assert history.loads == 3


def test_greedy_affinity_serves_the_resident_first() -> None:
    history = run.replay(two_models(), asked((0, "t"), (1, "s"), (2, "t")), AFFINITY, check=True)
    assert grants(history) == [11, 21, 13]
    assert history.loads == 2


def test_the_daemons_policy_does_so_too_until_the_turn_is_over() -> None:
    flood = asked((0, "t"), (1, "s"), *((2 + number / 10, "t") for number in range(30)))
    ours = run.replay(two_models(max_switch_wait=Duration(10)), flood, OURS, check=True)
    # Ready at 11, so that the turn ends at 21, in the middle of a request that ends at 23; park, load.
    assert grants(ours)[1] == 29
    greedy = run.replay(two_models(), flood, AFFINITY, check=True)
    assert grants(greedy)[1] == 11 + 31 * 2 + 6


def test_whoever_waits_too_long_is_sent_away_by_every_policy() -> None:
    for policy in (FIFO, AFFINITY, OURS):
        history = run.replay(two_models(queue_timeout=Duration(12)), asked((0, "t"), (1, "s")), policy, check=True)
        assert [request.refused for request in history.requests] == ["", "queue_timeout"], policy


def test_a_full_queue_refuses_under_every_policy() -> None:
    for policy in (FIFO, AFFINITY, OURS):
        history = run.replay(two_models(queue_requests=2), asked((0, "t"), (1, "t"), (2, "t")), policy, check=True)
        assert [request.refused for request in history.requests] == ["", "", "queue_full"], policy


def test_time_is_accounted_for() -> None:
    history = run.replay(two_models().with_traffic(duration=Duration(40)), asked((0, "t"), (1, "s")), FIFO)
    assert history.working_s == pytest.approx(4)
    assert history.moving_s == pytest.approx(5 + 1 + 5)
    assert history.turns_s == pytest.approx([11, 18])


def test_what_comes_before_the_end_of_the_warm_up_is_not_accounted_for() -> None:
    late = two_models().with_traffic(duration=Duration(40), warm_up=Duration(12))
    history = run.replay(late, asked((0, "t"), (1, "s")), FIFO)
    assert history.working_s == pytest.approx(1 + 2)
    assert history.loads == 1


class Script:
    """Grants whatever comes once its model is up, and does what it is told when time comes."""

    def __init__(self, *orders: tuple[float, Instruction]) -> None:
        self.orders = list(orders)
        self.told: list[tuple[float, Event]] = []
        self.next_wakeup = orders[0][0] if orders else math.inf

    def handle(self, event: Event, now: float) -> list[Instruction]:
        self.told.append((round(now, 6), event))
        out: list[Instruction] = []
        match event:
            case Requested(_, model):
                out.append(StartZygote(model))
            case ZygoteStarted(model):
                out.append(ForkWorker(model))
            case WorkerLoaded(model):
                out.append(Grant(0, model))
        while self.orders and self.orders[0][0] <= now:
            out.append(self.orders.pop(0)[1])
        self.next_wakeup = self.orders[0][0] if self.orders else math.inf
        return out


def long_job(script: Script, segment_s: float) -> History:
    """A job of 10 s that begins at 11."""
    models = scenario.load("alternating", {"models.speaker.segment": f"{segment_s}s", "models.speaker.request": "10s"})
    return Host(models.with_traffic(warm_up=Duration(0)), script, asked((0, "s"))).run()


def test_a_paused_job_stops_at_the_end_of_its_segment_and_loses_nothing() -> None:
    script = Script((13.5, Pause(0)), (30.0, Resume(0)), (31.0, Pause(0)), (50.0, Resume(0)))
    history = long_job(script, segment_s=3)
    # 11 to 14 is a segment; from 30 on the next, till 33; then the 4 s that are left.
    assert [at for at, event in script.told if isinstance(event, Yielded)] == [14, 33]
    assert history.requests[0].ended_at == pytest.approx(54)
    assert history.working_s == pytest.approx(10)


def test_a_pause_that_is_taken_back_costs_nothing() -> None:
    history = long_job(Script((11.5, Pause(0)), (12.5, Resume(0))), segment_s=3)
    assert history.requests[0].ended_at == pytest.approx(21)


def test_a_job_without_segments_runs_to_its_end() -> None:
    script = Script((12.0, Pause(0)))
    assert long_job(script, segment_s=0).requests[0].ended_at == pytest.approx(21)
    assert not [event for _, event in script.told if isinstance(event, Yielded)]


def test_a_policy_that_strands_somebody_is_found_out() -> None:
    class Deaf(Script):
        def handle(self, event: Event, now: float) -> list[Instruction]:
            return []

    with pytest.raises(Stranded, match="'speaker': 1"):
        Host(two_models(), Deaf(), asked((0, "s"))).run()


def test_a_short_clip_waits_for_one_segment_behind_a_long_file() -> None:
    home = scenario.load("home", {"traffic.warm_up": "0s"})
    arrivals = [Arrival(0, "transcriber", 4.0), Arrival(60, "transcriber", 600.0), Arrival(65, "transcriber", 3.0)]
    history = run.replay(home, arrivals, OURS, check=True)
    assert history.requests[2].wait_s <= home.models["transcriber"].segment
    file = history.requests[1]
    assert file.ended_at - file.granted_at == pytest.approx(file.service_s + history.requests[2].service_s)
