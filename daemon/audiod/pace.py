"""How a download goes, in words: `1.2 GiB of 3.7 GiB (33%), 24.1 MiB/s, 1m48s left`.

Only counts and prints; fetches nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from audiod.units import ByteSize, Duration

WINDOW_S = 20.0
"""What the rate is taken over: long enough to be calm, short enough to show that a mirror has gone slow."""


class Pace:
    """One download of `total_bytes` (0: not known), of which `done_bytes` were there when it began."""

    def __init__(self, total_bytes: int, done_bytes: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.total_bytes = total_bytes
        self.done_bytes = done_bytes
        self._clock = clock
        self._seen = deque([(clock(), done_bytes)])

    def reached(self, done_bytes: int) -> None:
        """So many bytes of the whole are there now."""
        now = self._clock()
        self.done_bytes = done_bytes
        self._seen.append((now, done_bytes))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()

    def rate_bytes_s(self, now: float | None = None) -> float:
        """Bytes a second over the latest WINDOW_S."""
        began, before = self._seen[0]
        took_s = (self._clock() if now is None else now) - began
        return max(0, self.done_bytes - before) / took_s if took_s > 0 else 0.0

    def __str__(self) -> str:
        rate = self.rate_bytes_s()
        said = str(ByteSize(self.done_bytes))
        if self.total_bytes:
            said += f" of {ByteSize(self.total_bytes)} ({100 * self.done_bytes // self.total_bytes}%)"
        said += f", {ByteSize(rate)}/s"
        if self.total_bytes and rate > 0:
            said += f", {Duration(round((self.total_bytes - self.done_bytes) / rate))} left"
        return said
