"""The order in which one model's requests are served: by rank, a time that is fixed when a request comes.

Keeps them in order and finds them; how a rank is made is policy.py's matter, who is served when the scheduler's.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

from audiod.residency.events import Demand


@dataclass(frozen=True, slots=True)
class Waiter:
    """A request in the queue. `rank`, `came_at` and `deadline` are seconds of the caller's clock."""

    request: int
    rank: float
    came_at: float
    deadline: float
    demand: Demand


class Queue:
    """Waiters of one model, lowest rank first; of equal ranks, lowest number first."""

    def __init__(self) -> None:
        self._order: list[tuple[float, int]] = []
        self._waiters: dict[int, Waiter] = {}
        self._sizes: list[float] = []  # those that are known, the smallest first

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, request: int) -> bool:
        return request in self._waiters

    def __iter__(self) -> Iterator[Waiter]:
        return (self._waiters[request] for _, request in self._order)

    @property
    def head(self) -> Waiter | None:
        return self._waiters[self._order[0][1]] if self._order else None

    @property
    def oldest_came_at(self) -> float | None:
        """When the one that waits for longest came; that need not be the head."""
        return next(iter(self._waiters.values())).came_at if self._waiters else None

    @property
    def smallest(self) -> float:
        """The smallest size that is known of a request here; 0 where none is."""
        return self._sizes[0] if self._sizes else 0.0

    def add(self, waiter: Waiter) -> None:
        insort(self._order, (waiter.rank, waiter.request))
        if waiter.demand.size > 0:
            insort(self._sizes, waiter.demand.size)
        self._waiters[waiter.request] = waiter

    def remove(self, request: int) -> Waiter:
        """Raises KeyError where `request` does not wait here."""
        waiter = self._waiters.pop(request)
        del self._order[bisect_left(self._order, (waiter.rank, request))]
        if waiter.demand.size > 0:
            del self._sizes[bisect_left(self._sizes, waiter.demand.size)]
        return waiter

    def ahead_of(self, waiter: Waiter) -> int:
        """How many would be served before `waiter`, whether it waits here or not."""
        return bisect_left(self._order, (waiter.rank, waiter.request))
