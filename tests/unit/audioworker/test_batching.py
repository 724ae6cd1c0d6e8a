"""Jobs on threads of their own that share calls: which of them, when, and what each gets."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from audioworker.batching import Batcher
from audioworker.jobs import Aborted, Job, Jobs

LONG_S = 3600.0
"""A wait that no test lives to see the end of: what happens despite it, happens at once."""


class Crew:
    """Jobs, each on a thread of its own, and the calls that are made for them. An item below 0 is a bad one."""

    def __init__(self, max_batch: int, max_wait_s: float) -> None:
        self.jobs = Jobs()
        self.calls: list[tuple[str, list[int]]] = []
        self.before_call: Callable[[], None] = lambda: None
        self.batcher: Batcher[str, int, str] = Batcher(self.jobs, self._call, max_batch, max_wait_s)
        self._threads: list[threading.Thread] = []
        self._calling = threading.Lock()

    def _call(self, key: str, items: Sequence[int]) -> list[str]:
        assert self._calling.acquire(blocking=False), "one call at a time"
        try:
            self.calls.append((key, list(items)))
            self.before_call()
            for item in items:
                if item < 0:
                    raise ValueError(f"{item} is bad")
            return [f"{key}{item}" for item in items]
        finally:
            self._calling.release()

    def begin(self, work: Callable[[], object], job: Job | None = None) -> Job:
        """Start `work` as a job; returns once it is at work."""
        job = job or Job(self.jobs, lambda: None)
        begun = threading.Event()

        def run() -> None:
            with self.jobs.working_on(job):
                begun.set()
                work()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        assert begun.wait(30)
        return job

    def together(self, asks: Sequence[tuple[str, int]]) -> list[str | Exception]:
        """What jobs get that are all at work before the first of them asks."""
        got: list[str | Exception] = [""] * len(asks)
        barrier = threading.Barrier(len(asks))

        def ask(place: int) -> None:
            barrier.wait(30)
            try:
                got[place] = self.batcher(*asks[place])
            except Exception as error:
                got[place] = error

        for place in range(len(asks)):
            self.begin(lambda place=place: ask(place))  # type: ignore[misc]
        self.join()
        return got

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def wait_for(self, waiting: int) -> None:
        """Until so many wait in the batcher."""
        with self.jobs.changed:
            assert self.jobs.changed.wait_for(lambda: self.batcher.waiting == waiting, 30)


def test_a_lone_job_does_not_wait() -> None:
    crew = Crew(max_batch=4, max_wait_s=LONG_S)
    assert crew.together([("a", 1)]) == ["a1"]


def test_without_a_worker_nobody_waits() -> None:
    crew = Crew(max_batch=4, max_wait_s=LONG_S)
    assert crew.batcher("a", 1) == "a1"


def test_jobs_that_all_wait_share_a_call_at_once() -> None:
    crew = Crew(max_batch=4, max_wait_s=LONG_S)
    assert crew.together([("a", 1), ("a", 2), ("a", 3)]) == ["a1", "a2", "a3"]
    assert [sorted(items) for _, items in crew.calls] == [[1, 2, 3]]


def test_no_call_has_more_than_max_batch() -> None:
    crew = Crew(max_batch=2, max_wait_s=LONG_S)
    assert crew.together([("a", number) for number in range(5)]) == [f"a{number}" for number in range(5)]
    assert sorted(len(items) for _, items in crew.calls) == [1, 2, 2]


def test_what_cannot_share_a_call_does_not() -> None:
    crew = Crew(max_batch=4, max_wait_s=LONG_S)
    assert crew.together([("a", 1), ("b", 2), ("a", 3), ("b", 4)]) == ["a1", "b2", "a3", "b4"]
    assert sorted((key, sorted(items)) for key, items in crew.calls) == [("a", [1, 3]), ("b", [2, 4])]


def test_a_job_that_is_busy_elsewhere_is_waited_for_but_not_for_long() -> None:
    crew = Crew(max_batch=2, max_wait_s=0.1)
    busy = threading.Event()
    crew.begin(lambda: busy.wait(30))
    began = time.monotonic()
    got: list[str] = []
    crew.begin(lambda: got.append(crew.batcher("a", 1)))
    with crew.jobs.changed:
        assert crew.jobs.changed.wait_for(lambda: crew.jobs.at_work == 1, 30)
    assert got == ["a1"]
    assert time.monotonic() - began >= 0.1
    busy.set()
    crew.join()


def test_a_job_that_stands_still_is_not_waited_for() -> None:
    crew = Crew(max_batch=2, max_wait_s=LONG_S)
    rests = threading.Event()
    resting = Job(crew.jobs, rests.set)
    resting.pause()
    crew.begin(resting.go_on, resting)
    assert rests.wait(30)
    got: list[str] = []
    crew.begin(lambda: got.append(crew.batcher("a", 1)))
    with crew.jobs.changed:
        assert crew.jobs.changed.wait_for(lambda: crew.jobs.at_work == 0, 30)
    assert got == ["a1"]
    resting.resume()
    crew.join()


def test_those_that_come_while_a_call_computes_share_the_next() -> None:
    crew = Crew(max_batch=3, max_wait_s=LONG_S)
    computing, go_on = threading.Event(), threading.Event()

    def first_call() -> None:
        crew.before_call = lambda: None
        computing.set()
        assert go_on.wait(30)

    crew.before_call = first_call
    crew.begin(lambda: crew.batcher("a", 0))
    assert computing.wait(30)
    for number in (1, 2, 3):
        crew.begin(lambda number=number: crew.batcher("a", number))  # type: ignore[misc]
    crew.wait_for(3)
    go_on.set()
    crew.join()
    assert [sorted(items) for _, items in crew.calls] == [[0], [1, 2, 3]]


def test_a_bad_item_fails_its_own_job_only() -> None:
    crew = Crew(max_batch=3, max_wait_s=LONG_S)
    good, bad, also_good = crew.together([("a", 1), ("a", -2), ("a", 3)])
    assert (good, also_good) == ("a1", "a3")
    assert isinstance(bad, ValueError)
    assert str(bad) == "-2 is bad"


def test_where_every_item_is_bad_each_job_gets_its_own_error() -> None:
    crew = Crew(max_batch=3, max_wait_s=LONG_S)
    errors = crew.together([("a", -1), ("a", -2)])
    assert [str(error) for error in errors] == ["-1 is bad", "-2 is bad"]


def test_a_call_that_returns_too_little_is_an_error_and_not_a_mix_up() -> None:
    jobs = Jobs()
    batcher: Batcher[str, int, str] = Batcher(jobs, lambda key, items: [], 1, 0)
    with pytest.raises(ValueError, match="shorter"):
        batcher("a", 1)


def test_an_aborted_job_leaves_the_batch() -> None:
    crew = Crew(max_batch=3, max_wait_s=LONG_S)
    busy = threading.Event()
    crew.begin(lambda: busy.wait(30))
    outcome: list[str] = []

    def ask() -> None:
        with pytest.raises(Aborted):
            crew.batcher("a", 1)
        outcome.append("aborted")

    job = crew.begin(ask)
    crew.wait_for(1)
    job.abort()
    crew.wait_for(0)
    busy.set()
    crew.join()
    assert outcome == ["aborted"]
    assert crew.calls == []


def test_an_aborted_job_leaves_while_another_call_computes() -> None:
    crew = Crew(max_batch=3, max_wait_s=LONG_S)
    computing, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        computing.set()
        assert go_on.wait(30)

    crew.before_call = hold
    crew.begin(lambda: crew.batcher("a", 0))
    assert computing.wait(30)

    def ask() -> None:
        with pytest.raises(Aborted):
            crew.batcher("a", 1)

    job = crew.begin(ask)
    crew.wait_for(1)
    job.abort()
    crew.wait_for(0)
    go_on.set()
    crew.join()
    assert crew.calls == [("a", [0])]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_each_job_gets_what_is_its_own(seed: int) -> None:
    chance = random.Random(seed)
    crew = Crew(chance.randint(1, 4), chance.choice([0.0, 0.001, 0.01]))
    numbers = iter(range(1, 1000))
    asks = [
        [(chance.choice("abc"), next(numbers) * chance.choice([1, 1, 1, 1, -1])) for _ in range(chance.randint(1, 12))]
        for _ in range(chance.randint(1, 6))
    ]
    wrong: list[object] = []

    def work(mine: list[tuple[str, int]], job: Job) -> None:
        for key, item in mine:
            try:
                got = crew.batcher(key, item)
            except Aborted:
                return
            except ValueError as error:
                got = str(error)
            if got != (f"{key}{item}" if item > 0 else f"{item} is bad"):
                wrong.append((key, item, got))

    jobs = [Job(crew.jobs, lambda: None) for _ in asks]
    for mine, job in zip(asks, jobs, strict=True):
        crew.begin(lambda mine=mine, job=job: work(mine, job), job)  # type: ignore[misc]
    for job in chance.sample(jobs, len(jobs) // 3):
        job.abort()
    crew.join()
    assert wrong == []
    assert crew.jobs.at_work == crew.batcher.waiting == 0
    key_of = {item: key for mine in asks for key, item in mine}
    for key, items in crew.calls:
        assert 1 <= len(items) <= 4
        assert {key_of[item] for item in items} == {key}
