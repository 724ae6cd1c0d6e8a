"""Runs policies over hosts: one after another for one host, in several processes for many.

Every host has traffic of its own, made from the seed and its number.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from simulation import traces
from simulation.checks import Checked
from simulation.figures import Sum
from simulation.host import History, Host
from simulation.policies import OURS, POLICIES
from simulation.scenario import Scenario
from simulation.traces import Arrival


def replay(scenario: Scenario, arrivals: Sequence[Arrival], policy: str, *, check: bool = False) -> History:
    """One host under one policy of POLICIES. Raises Stranded; with `check` also Broken."""
    made = POLICIES[policy](scenario)
    return Host(scenario, Checked(scenario, made) if check else made, arrivals).run()


def total(scenario: Scenario, arrivals: Sequence[Arrival], policy: str, *, check: bool = False) -> Sum:
    found = Sum()
    found.take(replay(scenario, arrivals, policy, check=check), scenario.traffic.warm_up)
    return found


def variants(scenarios: Sequence[Scenario], arrivals: Sequence[Arrival]) -> list[Sum]:
    """The daemon's policy on the same arrivals under several scenarios."""
    with ProcessPoolExecutor(_cores()) as pool:
        return list(pool.map(partial(_variant, arrivals), scenarios))


def _variant(arrivals: Sequence[Arrival], scenario: Scenario) -> Sum:
    return total(scenario, arrivals, OURS)


def hosts(scenario: Scenario, seed: int, count: int, *, check: bool = False) -> dict[str, Sum]:
    """Totals by policy over `count` hosts."""
    # In shares small enough that the last ones end together.
    shares = [range(first, count, _cores() * 4) for first in range(min(count, _cores() * 4))]
    totals = {name: Sum() for name in POLICIES}
    with ProcessPoolExecutor(_cores()) as pool:
        for found in pool.map(partial(_some_hosts, scenario, seed, check), shares):
            for name in POLICIES:
                totals[name].add(found[name])
    return totals


def _some_hosts(scenario: Scenario, seed: int, check: bool, numbers: range) -> dict[str, Sum]:
    totals = {name: Sum() for name in POLICIES}
    for number in numbers:
        arrivals = traces.generate(scenario, seed, number)
        for name in POLICIES:
            totals[name].add(total(scenario, arrivals, name, check=check))
    return totals


def _cores() -> int:
    return len(os.sched_getaffinity(0))
