"""Who has to go when room is needed. A pure function of what it is given; it must not log or remember.

Change this file to change who is evicted, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be evicted. `idle_since` is seconds of the caller's clock; `frees_bytes` of what is needed."""

    model: str
    frees_bytes: int
    busy: bool
    idle_since: float


def choose_victims(candidates: Sequence[Candidate], need_bytes: int) -> list[Candidate] | None:
    """The candidates to evict so that `need_bytes` become free, or None where all together do not suffice.

    Idle before busy, and among equals the one idle for longest (LRU); then whoever turned out not to be needed is
    spared, largest last-used first.
    """
    chosen: list[Candidate] = []
    freed = 0
    for candidate in sorted(candidates, key=lambda c: (c.busy, c.idle_since, c.model)):
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
