"""What no schedule could beat: the most requests of a trace that can begin in time, by one who knows the future.

For two models of which the device holds one at a time, each serving one request at a time. For other hosts it is not
computed. It bounds waits and the number served; it says nothing of how the requests that are not served in time fare.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

from simulation.scenario import Scenario
from simulation.traces import Arrival, service_s

_TOLERANCE_S = 0.05
"""To which waits are found by bisection."""

_STATES = 60_000
"""More are not looked at: about a second."""

_ROUNDING_S = 1e-9


class TooHard(Exception):
    """So many requests wait together that the best schedule would take long to find."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A relaxation of the host's: whoever solves the host's solves this, with the same beginnings.

    All requests of a model take as long as the shortest piece of work among them (a request, or a segment where it can
    be paused), and either model may stand ready at the beginning. `arrivals` and `service_s` are the two models';
    `switch_s[g]` is from the end of the other's work to the beginning of g's.
    """

    arrivals: tuple[Sequence[float], Sequence[float]]
    service_s: tuple[float, float]
    switch_s: tuple[float, float]

    @property
    def requests(self) -> int:
        return len(self.arrivals[0]) + len(self.arrivals[1])


def problem(scenario: Scenario, arrivals: Sequence[Arrival]) -> Problem | None:
    """The relaxation for those arrivals; None where it does not apply."""
    if len(scenario.models) != 2:
        return None
    names, models = list(scenario.models), list(scenario.models.values())
    if models[0].device != models[1].device or any(model.concurrency > 1 for model in models):
        return None
    if models[0].ready + models[1].ready <= scenario.devices[models[0].device]:
        return None
    times: tuple[list[float], list[float]] = ([], [])
    shortest = [math.inf, math.inf]
    for arrival in arrivals:
        which = names.index(arrival.model)
        times[which].append(arrival.at)
        shortest[which] = min(shortest[which], service_s(scenario, arrival), models[which].segment or math.inf)
    if not all(times):
        return None
    switch_s = (models[1].park + models[0].load, models[0].park + models[1].load)
    return Problem(times, (shortest[0], shortest[1]), switch_s)


def most_served(given: Problem, wait_s: float, misses: int | None = None) -> int:
    """The most requests that can begin within `wait_s` of their arrival. With `misses`, -1 where more are missed.

    Raises TooHard. Exact for the relaxation. Of equally long requests of a model the earliest that is still in time is
    served first, as swapping two shows; so a state is how many of each are past, who is resident, and when it is free.
    States are gone through in order of time, and of two that differ in time alone, or in what was served by then, the
    better stays.
    """
    fewest = 0 if misses is None else given.requests - misses
    best = states = 0
    heap = [(-math.inf, 0, (0, 0), 0), (-math.inf, 0, (0, 0), 1)]  # free at, minus served, how many past, resident
    most: dict[tuple[tuple[int, int], int], int] = {}
    while heap:
        now, lost, past, resident = heapq.heappop(heap)
        if most.get((past, resident), -1) >= -lost:
            continue
        most[past, resident] = -lost
        states += 1
        if states > _STATES:
            raise TooHard
        best = max(best, -lost)
        for which in (0, 1):
            index = past[which]
            if index == len(given.arrivals[which]):
                continue
            ready_at = now if which == resident else now + given.switch_s[which]
            ends_at = max(ready_at, given.arrivals[which][index]) + given.service_s[which]
            left = _in_time(
                given, (past[0] + 1, past[1]) if which == 0 else (past[0], past[1] + 1), which, ends_at, wait_s
            )
            if 1 - lost + given.requests - sum(left) >= fewest:
                heapq.heappush(heap, (ends_at, lost - 1, left, which))
    return best if best >= fewest else -1


def _in_time(given: Problem, past: tuple[int, int], resident: int, now: float, wait_s: float) -> tuple[int, int]:
    """`past`, with those added that can no longer begin in time."""
    counts = list(past)
    for which, times in enumerate(given.arrivals):
        ready_at = now if which == resident else now + given.switch_s[which]
        while counts[which] < len(times) and times[counts[which]] + wait_s < ready_at - _ROUNDING_S:
            counts[which] += 1
    return counts[0], counts[1]


def least_wait_s(given: Problem, share: float) -> float:
    """The least wait within which some schedule begins that share of the requests: no percentile can be below it.

    Raises TooHard.
    """
    misses = math.floor((1 - share) * given.requests + 1e-9)
    low, high = 0.0, 1.0
    while most_served(given, high, misses) < 0:
        low, high = high, high * 2
    while high - low > _TOLERANCE_S:
        middle = (low + high) / 2
        low, high = (middle, high) if most_served(given, middle, misses) < 0 else (low, middle)
    return low
