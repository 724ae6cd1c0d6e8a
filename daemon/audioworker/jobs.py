"""The jobs of a worker: who is at work, who is to stand still or to end; waiting threads hear of every change.

Knows neither messages nor engines, and computes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Aborted(Exception):
    """Nobody wants the job's answer any more. An engine lets it pass through from wherever it rested or waited."""


class Jobs:
    """All jobs of one worker, each on a thread of its own."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Held while anything below or in a Job is changed, and notified of it."""
        self.at_work = 0
        """Jobs that compute or are about to: all but those that stand still."""
        self._thread = threading.local()

    @property
    def mine(self) -> Job | None:
        """The job that this thread works on; None on any other thread."""
        job: Job | None = getattr(self._thread, "job", None)
        return job

    def rest(self) -> None:
        """A place to stand still, and to end, inside a long computation of this thread's job; holds no lock.

        For an engine that may compute for seconds without yielding. Raises Aborted.
        """
        if self.mine is not None and not self.mine.go_on():
            raise Aborted

    @contextmanager
    def working_on(self, job: Job) -> Iterator[None]:
        """Inside, this thread works on `job`."""
        self._thread.job = job
        self.move(1)
        try:
            yield
        finally:
            self.move(-1)
            self._thread.job = None

    def move(self, number: int) -> None:
        """`number` jobs more, or fewer, are at work."""
        with self.changed:
            self.at_work += number
            self.changed.notify_all()


class Job:
    """One job. It is steered from any thread; `go_on` is asked on its own.

    `on_rest` is called on the job's thread, once for each pause, when it stands still.
    """

    def __init__(self, jobs: Jobs, on_rest: Callable[[], None]) -> None:
        self.aborted = False
        self.rested_s = 0.0
        """Seconds that it has stood still."""
        self._jobs = jobs
        self._on_rest = on_rest
        self._paused = False
        self._told = False

    def abort(self) -> None:
        with self._jobs.changed:
            self.aborted = True
            self._jobs.changed.notify_all()

    def pause(self) -> None:
        with self._jobs.changed:
            if not self._paused:
                self._paused, self._told = True, False
                self._jobs.changed.notify_all()

    def resume(self) -> None:
        with self._jobs.changed:
            self._paused = False
            self._jobs.changed.notify_all()

    @property
    def to_stop(self) -> bool:
        """Whether a computation that shares its call with other jobs should leave it now: to rest, or for good."""
        return self._paused or self.aborted

    def is_aborted(self) -> bool:
        return self.aborted

    def go_on(self) -> bool:
        """Stand still for as long as the job is paused; then, whether it is still wanted."""
        if self._to_rest():
            began = time.monotonic()
            self._jobs.move(-1)
            try:
                while self._must_tell():
                    self._on_rest()
            finally:
                self._jobs.move(1)
                self.rested_s += time.monotonic() - began
        return not self.aborted

    def _to_rest(self) -> bool:
        return self._paused and not self.aborted

    def _must_tell(self) -> bool:
        """Wait until the rest is over (False), or a pause has come that nobody has been told of (True)."""
        with self._jobs.changed:
            self._jobs.changed.wait_for(lambda: not self._to_rest() or not self._told)
            self._told = True
            return self._to_rest()
