"""The scheduler alone, in audiod's own environment: events that it takes in a second.

python -m benchmarks.inside.scheduler
"""

from __future__ import annotations

import time

from audiod.residency.events import (
    Demand,
    DeviceMeasured,
    Event,
    Grant,
    Limits,
    LoadAsked,
    MeasureDevice,
    Profile,
    Released,
    Requested,
    WorkerLoaded,
    ZygoteStarted,
)
from audiod.residency.footprint import Footprint
from audiod.residency.scheduler import Scheduler

EVENTS = 20_000


class Fed:
    """A scheduler with 12 models whose instructions come true at once."""

    def __init__(self) -> None:
        profiles = [Profile(f"m{n}", Footprint(60, 10)) for n in range(12)]
        self._scheduler = Scheduler(profiles, Limits({"cpu": 100}, 1000, queue_requests=2000))
        self.granted: list[int] = []
        self.taken = 0

    def feed(self, event: Event, now: float = 0.0) -> None:
        self.taken += 1
        for instruction in self._scheduler.handle(event, now):
            if isinstance(instruction, MeasureDevice):
                self.feed(DeviceMeasured(instruction.device, 0, 0), now)
            elif isinstance(instruction, Grant):
                self.granted.append(instruction.request)


def main() -> None:
    it = Fed()
    for event in (LoadAsked(0, "m0"), ZygoteStarted("m0", 0), WorkerLoaded("m0", 0)):
        it.feed(event)
    number = 0
    while number < 1000:
        number += 1
        it.feed(Requested(number, f"m{number % 3}", 1e9, Demand(float(number % 50))))
    now, began, before = 0.0, time.perf_counter(), it.taken
    while it.taken - before < EVENTS:
        number += 1
        now += 0.001
        it.feed(Requested(number, "m0", 1e9, Demand(3.0)), now)
        if it.granted:
            it.feed(Released(it.granted.pop()), now)
    print((it.taken - before) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
