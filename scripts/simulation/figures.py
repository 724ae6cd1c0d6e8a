"""What a run amounts to: throughput, waits, switches, refusals. Sums over hosts, and the figures made of the sums.

Only counts; what the figures mean is report.py's matter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from simulation.host import History


class Waits(msgspec.Struct, frozen=True):
    """From a request to the beginning of its service, in seconds; of the requests that were served."""

    served: int
    mean_s: float
    p50_s: float
    p95_s: float
    max_s: float


class Figures(msgspec.Struct, frozen=True):
    """Of the requests that came in the measured stretch; `throughput_per_s` and shares are of the stretch itself.

    For several hosts together: throughput is their sum, shares are their average.
    """

    requests: int
    served: int
    load: float
    """Seconds of work that the requests asked for in a second."""
    refused: dict[str, int]
    """By the error's code."""
    throughput_per_s: float
    """Requests whose service ended in a second."""
    wait: Waits
    waits: dict[str, Waits]
    """By model and priority."""
    turn_max_s: float
    """The longest that a model was waited for until it was loaded."""
    switches_per_100: float
    """Loads for a hundred requests that ended."""
    switching_share: float
    """Of the time, in which a model was being loaded or parked."""
    working_share: float
    """Of the time, in which requests were at work; above 1 where several were at once."""
    events: int
    events_per_s: float
    """That the policy handles in a second of processor time; the simulation around it is not counted."""


@dataclass
class Sum:
    """What is kept of runs, to be added up."""

    waits_s: dict[str, list[float]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    asked_s: float = 0.0
    ended: int = 0
    loads: int = 0
    turn_max_s: float = 0.0
    piece_s: float = 0.0
    """The longest piece of work that nothing interrupts: a request, or a segment."""
    measured_s: float = 0.0
    hosts: int = 0
    moving_s: float = 0.0
    working_s: float = 0.0
    events: int = 0
    handling_s: float = 0.0

    def take(self, history: History, since_s: float) -> None:
        """Add one host's run, measured from `since_s` on."""
        until_s = since_s + history.measured_s
        for request in history.requests:
            self.ended += since_s <= request.ended_at < until_s
            if request.arrival.at < since_s:
                continue
            self.requests += 1
            self.asked_s += request.service_s
            self.piece_s = max(self.piece_s, request.piece_s)
            if request.refused:
                self.refused[request.refused] += 1
            else:
                kind = f"{request.arrival.model}, {request.arrival.priority}"
                self.waits_s.setdefault(kind, []).append(request.wait_s)
        self.loads += history.loads
        self.turn_max_s = max(self.turn_max_s, *history.turns_s, 0.0)
        self.measured_s = history.measured_s
        self.hosts += 1
        self.moving_s += history.moving_s
        self.working_s += history.working_s
        self.events += history.events
        self.handling_s += history.handling_s

    def add(self, other: Sum) -> None:
        for kind, waits in other.waits_s.items():
            self.waits_s.setdefault(kind, []).extend(waits)
        self.refused.update(other.refused)
        self.turn_max_s = max(self.turn_max_s, other.turn_max_s)
        self.piece_s = max(self.piece_s, other.piece_s)
        self.measured_s = other.measured_s
        for name in ("requests", "asked_s", "ended", "loads", "hosts", "moving_s", "working_s", "events",
                     "handling_s"):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def all_waits_s(self) -> list[float]:
        return sorted(wait for waits in self.waits_s.values() for wait in waits)

    def figures(self) -> Figures:
        time_s = self.measured_s * self.hosts
        return Figures(
            requests=self.requests,
            served=self.requests - self.refused.total(),
            load=round(self.asked_s / time_s, 4),
            refused=dict(self.refused),
            throughput_per_s=round(self.ended / self.measured_s, 4),
            wait=_waits(self.all_waits_s),
            waits={kind: _waits(sorted(waits)) for kind, waits in sorted(self.waits_s.items())},
            turn_max_s=round(self.turn_max_s, 3),
            switches_per_100=round(100 * self.loads / max(1, self.ended), 2),
            switching_share=round(self.moving_s / time_s, 4),
            working_share=round(self.working_s / time_s, 4),
            events=self.events,
            events_per_s=round(self.events / self.handling_s) if self.handling_s else 0,
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the least value that `share` of all do not exceed. 0 for none at all."""
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)] if ordered else 0.0


def _waits(ordered: Sequence[float]) -> Waits:
    count = len(ordered)
    values = (sum(ordered) / max(1, count), *(percentile(ordered, share) for share in (0.5, 0.95, 1.0)))
    return Waits(count, *(round(value, 3) for value in values))
