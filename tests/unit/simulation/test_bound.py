"""The best possible schedule: exact where all schedules can be tried, and never beaten by a policy."""

from __future__ import annotations

from random import Random

import pytest

from audiod.units import Duration
from simulation import bound, run, scenario, traces
from simulation.bound import Problem
from simulation.figures import percentile
from simulation.policies import POLICIES


def tried(given: Problem, wait_s: float) -> int:
    """The most requests that begin in time, by trying every order of every choice of them."""

    def best(now: float, resident: int, left: tuple[frozenset[int], frozenset[int]]) -> int:
        most = 0
        for which in (0, 1):
            ready_at = now if which == resident else now + given.switch_s[which]
            for one in left[which]:
                came_at = given.arrivals[which][one]
                begins_at = max(ready_at, came_at)
                if begins_at <= came_at + wait_s + 1e-9:
                    rest = [left[0], left[1]]
                    rest[which] = left[which] - {one}
                    most = max(most, 1 + best(begins_at + given.service_s[which], which, (rest[0], rest[1])))
        return most

    every = (frozenset(range(len(given.arrivals[0]))), frozenset(range(len(given.arrivals[1]))))
    return max(best(float("-inf"), resident, every) for resident in (0, 1))


def drawn(random: Random, requests: int) -> Problem:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(requests):
        times[random.randrange(2)].append(round(random.uniform(0, 20), 1))
    return Problem(
        (sorted(times[0]), sorted(times[1])),
        (random.choice([0.5, 2.0]), random.choice([1.0, 2.0])),
        (random.choice([0.0, 3.0, 6.0]), random.choice([1.0, 6.0])),
    )


def test_it_is_what_trying_everything_finds() -> None:
    random = Random(11)
    for _ in range(150):
        given = drawn(random, random.randint(1, 6))
        wait_s = random.choice([0.0, 1.0, 3.0, 7.0, 15.0])
        assert bound.most_served(given, wait_s) == tried(given, wait_s), (given, wait_s)


def test_the_least_wait_is_where_the_share_is_reached() -> None:
    random = Random(12)
    for _ in range(40):
        given = drawn(random, random.randint(2, 12))
        for share in (0.5, 1.0):
            least_s = bound.least_wait_s(given, share)
            assert bound.most_served(given, least_s + 0.06) >= share * given.requests
            assert least_s <= 0.05 or bound.most_served(given, least_s - 0.01) < share * given.requests


@pytest.mark.parametrize("kind", ["alternating", "poisson", "bursts"])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_no_policy_beats_it(kind: str, load: float) -> None:
    for seed in (1, 4, 7):
        wanted = scenario.load("alternating").with_traffic(
            kind=kind, load=load, burst=3, duration=Duration(240), warm_up=Duration(60)
        )
        arrivals = traces.generate(wanted, seed)
        given = bound.problem(wanted, [arrival for arrival in arrivals if arrival.at >= 60])
        assert given is not None, "a model was not asked for: take another seed"
        for policy in POLICIES:
            waits = run.total(wanted, arrivals, policy, check=True).all_waits_s
            assert len(waits) == given.requests
            for share in (0.95, 1.0):
                assert percentile(waits, share) >= bound.least_wait_s(given, share), (policy, seed, share)
            for wait_s in (5.0, 22.0):
                in_time = sum(wait <= wait_s for wait in waits)
                assert in_time <= bound.most_served(given, wait_s), (policy, seed, wait_s)


def test_where_too_many_wait_together_it_says_so() -> None:
    crowd = [number / 10 for number in range(600)]
    with pytest.raises(bound.TooHard):
        bound.most_served(Problem((crowd, crowd), (1.0, 1.5), (3.0, 4.0)), 300.0)


def test_a_host_that_it_does_not_describe_has_none() -> None:
    arrivals = traces.generate(scenario.load("alternating"), 1)
    assert bound.problem(scenario.load("home"), []) is None
    assert bound.problem(scenario.load("alternating", {"models.speaker.ready": "1GiB"}), arrivals) is None
    assert bound.problem(scenario.load("alternating", {"models.speaker.concurrency": "2"}), arrivals) is None
