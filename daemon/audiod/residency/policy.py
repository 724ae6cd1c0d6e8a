"""Who is served first, who has to go, who is interrupted: pure functions of what they are given.

Change this file to change any of that, and nothing else; `scripts/simulate` shows what a change is worth. It must not
log or remember.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiod.residency.events import Demand, Limits
from audioproto.types import Priority

_LENGTH_PATIENCE_S = 30.0
"""The most that a request is put off for being long."""

_RELOAD_WORTH = 10.0
"""Seconds of idleness that one second of reloading is worth: what loads slowly is kept for longer (GreedyDual)."""

_MUCH_SHORTER = 4.0
"""How many times longer a job must be to be interrupted for another."""

LONGEST_PAUSE_S = 10.0
"""A job that has stood still for so long goes on before others begin."""


def rank(came_at: float, demand: Demand, work_s: float, limits: Limits) -> float:
    """A request's place in the order, as a time: the lower, the sooner. `work_s` is how long it will take.

    It counts as come later the longer it takes, and if it is batch work. Being fixed, it ages by itself: whoever comes
    late enough ranks behind the longest batch job.
    """
    patience_s = min(work_s, _LENGTH_PATIENCE_S)
    if demand.priority is Priority.BATCH:
        patience_s += limits.batch_patience_s
    return came_at + patience_s


def turn_ends(wanted_at: float, ready_at: float, owes: bool, limits: Limits) -> float:
    """When a model that is at work since `ready_at` has to make room for one that is wanted since `wanted_at`.

    Until then it serves on, so that requests of one model are done together between two switches. `owes`: somebody who
    ranks before the other's first still waits for it; for as long again, switching would only be to switch back.
    """
    return max(wanted_at, ready_at) + limits.max_switch_wait_s * (2 if owes else 1)


def interrupts(size: float, running_size: float) -> bool:
    """Whether a request of `size` need not wait for the end of a job of `running_size`; 0 is not known."""
    return 0 < size * _MUCH_SHORTER <= running_size


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be evicted.

    `idle_since` is seconds of the caller's clock, `load_s` what bringing it back takes, `frees_bytes` what it gives.
    """

    model: str
    frees_bytes: int
    busy: bool
    idle_since: float
    load_s: float = 0.0

    @property
    def worth(self) -> tuple[bool, float, str]:
        """The lower, the sooner it goes: idle before busy, then least recently used, with its reload counted in."""
        return self.busy, self.idle_since + _RELOAD_WORTH * self.load_s, self.model


def choose_victims(candidates: Sequence[Candidate], need_bytes: int) -> list[Candidate] | None:
    """The candidates to evict so that `need_bytes` become free, or None where all together do not suffice.

    The least worth first; then whoever turned out not to be needed is spared, the most worth first.
    """
    chosen: list[Candidate] = []
    freed = 0
    for candidate in sorted(candidates, key=lambda c: c.worth):
        if freed >= need_bytes:
            break
        chosen.append(candidate)
        freed += candidate.frees_bytes
    if freed < need_bytes:
        return None
    for candidate in reversed(chosen[:-1]):
        if freed - candidate.frees_bytes >= need_bytes:
            chosen.remove(candidate)
            freed -= candidate.frees_bytes
    return chosen
