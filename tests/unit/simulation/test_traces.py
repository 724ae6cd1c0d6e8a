"""Traffic: as much as was asked for, the same for the same seed, and read back from records and journals."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
from msgspec import structs

from audiod.units import Duration
from audioproto.errors import ConfigInvalid
from audioproto.types import Priority
from simulation import scenario, traces
from simulation.scenario import Scenario
from simulation.traces import Arrival


def some(**traffic: object) -> Scenario:
    return scenario.load("alternating").with_traffic(**traffic)


def test_alternating_asks_for_the_models_in_turn_at_equal_distances() -> None:
    arrivals = traces.generate(some(kind="alternating", load=0.5), seed=1)
    assert [arrival.model for arrival in arrivals[:4]] == ["transcriber", "speaker"] * 2
    assert {round(after.at - before.at, 6) for before, after in pairwise(arrivals)} == {4.0}


@pytest.mark.parametrize("kind", ["alternating", "poisson", "bursts", "day"])
@pytest.mark.parametrize("name", ["alternating", "home"])
def test_as_much_work_is_asked_for_as_the_load_says(kind: str, name: str) -> None:
    wanted = scenario.load(name, {"traffic.kind": kind, "traffic.load": "0.4", "traffic.duration": "5d"})
    if name == "home":  # of it the model whose requests are much alike: hour-long files leave too much to chance
        wanted = structs.replace(wanted, models={"small-voice": wanted.models["small-voice"]})
    asked_s = sum(traces.service_s(wanted, arrival) for arrival in traces.generate(wanted, seed=3))
    assert asked_s / wanted.traffic.duration == pytest.approx(0.4, rel=0.05)


def test_the_mean_of_sizes_that_are_cut_off_is_exact() -> None:
    sizes = scenario.Sizes(median=80, spread=0.9, at_most=200)
    voice = structs.replace(scenario.load("home").models["small-voice"], sizes=(sizes,))
    busy = some(kind="poisson", load=100, duration=Duration(300))
    drawn = [arrival.size for arrival in traces.generate(structs.replace(busy, models={"voice": voice}), 1)]
    assert len(drawn) > 50_000
    assert sum(drawn) / len(drawn) == pytest.approx(sizes.mean, rel=0.01)
    assert max(drawn) == 200


def test_the_same_seed_and_host_give_the_same_and_others_do_not() -> None:
    wanted = some(kind="poisson")
    assert traces.generate(wanted, 1, host=2) == traces.generate(wanted, 1, host=2)
    assert traces.generate(wanted, 1, host=2) != traces.generate(wanted, 1, host=3)
    assert traces.generate(wanted, 1, host=2) != traces.generate(wanted, 2, host=2)


def test_bursts_come_together() -> None:
    arrivals = traces.generate(some(kind="bursts", burst=5, burst_within=Duration(0.5), duration=Duration(86400)), 1)
    ours = [arrival.at for arrival in arrivals if arrival.model == "speaker"]
    close = sum(after - before < 0.5 for before, after in pairwise(ours))
    assert close / len(ours) > 0.75  # four of five follow their like


def test_a_day_is_busy_when_its_hours_say_so() -> None:
    hours = (0.0,) * 23 + (1.0,)
    arrivals = traces.generate(some(kind="day", hours=hours, duration=Duration(86400)), 1)
    assert len(arrivals) > 10_000
    # It begins at some time of the day, so that the busy hour may lie at both ends.
    between = [arrival.at for arrival in arrivals]
    longest_gap_s = max(after - before for before, after in pairwise([*between, between[0] + 86400]))
    assert longest_gap_s == pytest.approx(23 * 3600, rel=0.01)


def test_a_trace_is_written_and_read_back() -> None:
    wanted = scenario.load("home")
    arrivals = traces.generate(wanted, 1)
    file = io.StringIO()
    traces.write(arrivals, file)
    assert traces.read(file.getvalue().splitlines(), wanted) == arrivals


def journal(model: str, status: int, seconds: float, at: float) -> str:
    """A line as `journalctl -o json` prints what logs.py sends: every value is text."""
    return json.dumps(
        {
            "__REALTIME_TIMESTAMP": str(int(at * 1e6)),
            "_SYSTEMD_UNIT": "audiod.service",
            "MESSAGE": f"POST /v1/audio/speech {status} {seconds} s",
            "AUDIOD_MODEL": model,
            "AUDIOD_STATUS": str(status),
            "AUDIOD_SECONDS": str(seconds),
        }
    )


def test_the_journal_is_read_as_the_requests_came_not_as_they_ended() -> None:
    wanted = scenario.load("alternating")
    lines = [
        '{"__REALTIME_TIMESTAMP": "1700000000000000", "MESSAGE": "parked -> loading", "AUDIOD_MODEL": "speaker"}',
        journal("transcriber", 200, 1.0, 1_700_000_002.0),
        journal("speaker", 503, 9.5, 1_700_000_010.0),  # came first, and was sent away
        journal("speaker", 400, 0.1, 1_700_000_011.0),  # never asked for its model
        journal("speaker", 499, 1.0, 1_700_000_012.0),
    ]
    arrivals = traces.read(lines, wanted)
    assert [(round(arrival.at, 3), arrival.model) for arrival in arrivals] == [
        (0.0, "speaker"),
        (0.5, "transcriber"),
        (10.5, "speaker"),
    ]
    assert traces.service_s(wanted, arrivals[0]) == 2.0  # of unknown size: what its model takes on average


def test_a_record_may_say_how_long_serving_takes_and_who_waits() -> None:
    wanted = scenario.load("alternating")
    line = '{"at": 3, "model": "speaker", "size": 12, "priority": "batch", "service_s": 0.25}'
    (arrival,) = traces.read([line, ""], wanted)
    assert arrival == Arrival(3.0, "speaker", 12.0, Priority.BATCH, 0.25)
    assert traces.service_s(wanted, arrival) == 0.25


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"at": 1, "model": "speaker"}', '{"at": 1}'], "line 2 of the trace"),
        (["not JSON"], "line 1 of the trace"),
        (['{"at": 1, "model": "organ"}'], "asks for organ"),
        ([], "holds no request"),
    ],
)
def test_a_bad_record_is_refused_with_what_is_wrong(lines: list[str], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        traces.read(lines, scenario.load("alternating"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_switch_wait": "soon"}, "limits.max_switch_wait"),
        ({"models.speaker.lode": "3s"}, "lode"),
        ({"models.speaker.device": "cuda:7"}, "cuda:7"),
        ({"models.speaker.request": "0s"}, "take no time"),
    ],
)
def test_a_bad_scenario_is_refused_with_the_key(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        scenario.load("alternating", changes)


def test_a_value_can_be_set_from_outside() -> None:
    changed = scenario.load("alternating", {"max_switch_wait": "35s", "models.speaker.load": "2s"})
    assert changed.limits.max_switch_wait == 35.0
    assert changed.models["speaker"].load == 2.0
    assert changed.scheduler_limits().max_switch_wait_s == 35.0
