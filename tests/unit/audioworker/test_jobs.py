"""How a job stands still, goes on and ends, on a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from audioworker.jobs import Aborted, Job, Jobs


class Walker:
    """A job that takes a step each time it is let, and tells when it rests."""

    def __init__(self, jobs: Jobs) -> None:
        self.told: queue.Queue[str] = queue.Queue()
        self.job = Job(jobs, lambda: self.told.put("rests"))
        self._let = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._walk, args=(jobs,))
        self._thread.start()

    def _walk(self, jobs: Jobs) -> None:
        with jobs.working_on(self.job):
            while self.job.go_on():
                self.told.put("steps")
                self._let.acquire()
        self.told.put("ends")

    def hear(self) -> str:
        return self.told.get(timeout=30)

    def step(self) -> None:
        self._let.release()

    def end(self) -> None:
        self.job.abort()
        self.step()
        self._thread.join(30)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def wait_until(jobs: Jobs, true: Callable[[], bool]) -> None:
    with jobs.changed:
        assert jobs.changed.wait_for(true, 30)


def test_a_paused_job_stands_still_at_its_next_step_and_goes_on_when_resumed(jobs: Jobs) -> None:
    walker = Walker(jobs)
    assert walker.hear() == "steps"
    assert jobs.at_work == 1
    walker.job.pause()
    walker.step()
    assert walker.hear() == "rests"
    assert jobs.at_work == 0
    walker.job.resume()
    assert walker.hear() == "steps"
    assert jobs.at_work == 1
    assert walker.job.rested_s > 0
    walker.end()
    assert walker.hear() == "ends"
    assert jobs.at_work == 0


def test_every_pause_is_answered_once(jobs: Jobs) -> None:
    walker = Walker(jobs)
    assert walker.hear() == "steps"
    walker.job.pause()
    walker.job.pause()
    walker.step()
    assert walker.hear() == "rests"
    with jobs.changed:  # its thread sees both at once
        walker.job.resume()
        walker.job.pause()
    assert walker.hear() == "rests"
    walker.job.resume()
    assert walker.hear() == "steps"
    walker.end()


def test_a_pause_that_was_undone_in_time_is_not_noticed(jobs: Jobs) -> None:
    walker = Walker(jobs)
    assert walker.hear() == "steps"
    walker.job.pause()
    walker.job.resume()
    walker.step()
    assert walker.hear() == "steps"
    walker.end()


def test_a_job_that_stands_still_can_be_aborted(jobs: Jobs) -> None:
    walker = Walker(jobs)
    assert walker.hear() == "steps"
    walker.job.pause()
    walker.step()
    assert walker.hear() == "rests"
    walker.job.abort()
    assert walker.hear() == "ends"


def test_an_aborted_job_does_not_stand_still_any_more(jobs: Jobs) -> None:
    walker = Walker(jobs)
    assert walker.hear() == "steps"
    walker.job.abort()
    walker.job.pause()
    walker.step()
    assert walker.hear() == "ends"


def test_inside_a_computation_a_job_rests_and_ends_too(jobs: Jobs) -> None:
    told: queue.Queue[str] = queue.Queue()
    job = Job(jobs, lambda: told.put("rests"))
    job.pause()

    def compute() -> None:
        with jobs.working_on(job), pytest.raises(Aborted):
            jobs.rest()
        told.put("ends")

    thread = threading.Thread(target=compute)
    thread.start()
    assert told.get(timeout=30) == "rests"
    job.abort()
    assert told.get(timeout=30) == "ends"
    thread.join(30)


def test_where_there_is_no_job_nothing_rests(jobs: Jobs) -> None:
    jobs.rest()
    assert jobs.mine is None


def test_others_hear_when_a_job_comes_rests_and_goes(jobs: Jobs) -> None:
    walker = Walker(jobs)
    wait_until(jobs, lambda: jobs.at_work == 1)
    walker.job.pause()
    walker.step()
    wait_until(jobs, lambda: jobs.at_work == 0)
    walker.job.resume()
    wait_until(jobs, lambda: jobs.at_work == 1)
    walker.end()
    wait_until(jobs, lambda: jobs.at_work == 0)


def test_a_call_shared_with_others_is_to_be_left_by_who_is_paused_or_given_up() -> None:
    job = Job(Jobs(), lambda: None)
    told = [job.to_stop]
    for steer in (job.pause, job.resume, job.abort):
        steer()
        told.append(job.to_stop)
    assert told == [False, True, False, True]
