"""Brings jobs that wait for the same kind of computation together, so that one call computes for all of them.

Knows no engine and starts no thread: the call is made on the thread of one of the jobs in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from audioworker.jobs import Aborted, Job, Jobs

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Entry(Generic[Key, Item, Result]):
    """One job's item, and what became of it."""

    def __init__(self, key: Key, item: Item, job: Job | None) -> None:
        self.key = key
        self.item = item
        self.job = job
        self.since = time.monotonic()
        self.done = False
        self.results: list[Result] = []
        self.error: BaseException | None = None

    @property
    def wanted(self) -> bool:
        return self.job is None or not self.job.aborted


class Batcher(Generic[Key, Item, Result]):
    """Makes one call of `call(key, items)` out of calls `batcher(key, item)` on several threads.

    `call` returns a result for each item, in their order. Items share a call where their keys are equal; no more than
    `max_batch` do. One call computes at a time, and what comes meanwhile goes together into the next.

    A call is made as soon as it is full, or every job at work (`jobs.at_work`) waits here, so that a lone job never
    does; at the latest when its first item has waited for `max_wait_s` seconds while nothing was being computed.
    """

    def __init__(
        self,
        jobs: Jobs,
        call: Callable[[Key, Sequence[Item]], Sequence[Result]],
        max_batch: int,
        max_wait_s: float,
    ) -> None:
        self._jobs = jobs
        self._call = call
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._waiting: list[_Entry[Key, Item, Result]] = []
        self._computing = False
        self._free_since = -math.inf

    @property
    def waiting(self) -> int:
        """Items that wait for a call, or for more to join theirs."""
        return len(self._waiting)

    def __call__(self, key: Key, item: Item) -> Result:
        """`item`'s result, once it is computed. Raises what `call` raises for this item, and Aborted."""
        entry: _Entry[Key, Item, Result] = _Entry(key, item, self._jobs.mine)
        if batch := self._join(entry):
            self._compute(batch)
        if entry.error is not None:
            raise entry.error
        return entry.results[0]

    def _join(self, entry: _Entry[Key, Item, Result]) -> list[_Entry[Key, Item, Result]]:
        """Wait until the entry is computed, or for a batch with it that this thread is to compute."""
        changed = self._jobs.changed
        with changed:
            self._waiting.append(entry)
            changed.notify_all()
            try:
                while not entry.done:
                    if entry in self._waiting and not entry.wanted:
                        raise Aborted
                    batch, left_s = ([], None) if self._computing else self._next()
                    if entry in batch:
                        self._waiting = [other for other in self._waiting if other not in batch]
                        self._computing = True
                        return batch
                    changed.wait(left_s)
            finally:
                if entry in self._waiting:
                    self._waiting.remove(entry)
        return []

    def _next(self) -> tuple[list[_Entry[Key, Item, Result]], float | None]:
        """The batch that is due and has waited longest, empty if none is; and seconds until one is, None if one is."""
        wanted = [entry for entry in self._waiting if entry.wanted]
        all_wait = len(self._waiting) >= self._jobs.at_work
        now = time.monotonic()
        left_s = None
        for first in wanted:
            batch = [entry for entry in wanted if entry.key == first.key][: self._max_batch]
            rest_s = max(batch[0].since, self._free_since) + self._max_wait_s - now
            if all_wait or len(batch) == self._max_batch or rest_s <= 0:
                return batch, None
            left_s = rest_s if left_s is None else min(left_s, rest_s)
        return [], left_s

    def _compute(self, batch: list[_Entry[Key, Item, Result]]) -> None:
        try:
            self._attempt(batch)
        except BaseException as error:
            for entry in batch:
                entry.error = error
            raise
        finally:
            with self._jobs.changed:
                self._computing = False
                self._free_since = time.monotonic()
                for entry in batch:
                    entry.done = True
                self._jobs.changed.notify_all()

    def _attempt(self, batch: list[_Entry[Key, Item, Result]]) -> None:
        """Compute together; where that fails, each alone, so that one bad item does not fail its neighbours."""
        try:
            results = self._call(batch[0].key, [entry.item for entry in batch])
            for entry, result in zip(batch, results, strict=True):
                entry.results = [result]
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for entry in batch:
                self._attempt([entry])
