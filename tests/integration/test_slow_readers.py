"""Speech and clients that take it slowly, not at all, or not to its end: the model is not theirs meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path

import pytest

from clients import LONG_TEXT, Remains, cancelled, client, cpu_ticks, held_bytes, leases, samples
from daemons import Daemon, running, say
from scraping import until
from watching import kill

LITTLE = 8192
"""What the kernel may take for a client that reads nothing."""

BEGUN = 'audiod_first_byte_seconds_count{model="hibari"}'
SPOKEN = 'audiod_audio_seconds_total{model="hibari"}'


@pytest.fixture(scope="module")
def speaking(daemon: Daemon) -> Daemon:
    """With the model up, and the media zygote too."""
    assert say(daemon, response_format="mp3")[0] == 200
    return daemon


def test_who_reads_nothing_does_not_hold_the_model(speaking: Daemon) -> None:
    """The model serves one request at a time; what it made for the silent client waits, whole, and is counted."""
    remains = Remains(speaking)
    status, expected = say(speaking, LONG_TEXT)
    assert status == 200
    with client(speaking, LITTLE) as silent:
        silent.send_speech(LONG_TEXT)
        until(lambda: samples(speaking)[BEGUN] > 1)
        assert say(speaking, "Hello there.")[0] == 200
        until(lambda: leases(speaking, "hibari") == 0)
        assert held_bytes(speaking) > len(expected) / 2
        answer = silent.answer()
        assert answer.status == 200
        assert answer.read() == expected
    remains.check()


def test_who_leaves_while_it_is_spoken_stops_the_work(speaking: Daemon) -> None:
    remains, spoken = Remains(speaking), samples(speaking)[SPOKEN]
    before = cancelled(speaking, "hibari", "running")
    with client(speaking, LITTLE) as one:
        one.send_speech(LONG_TEXT)
        assert one.answer().read(1000)
    until(lambda: cancelled(speaking, "hibari", "running") == before + 1)
    remains.check()
    worker = speaking.model("hibari")["worker_pid"]
    ticks = cpu_ticks(worker)
    assert samples(speaking)[SPOKEN] == spoken, "a request that was given up does not count as spoken"
    assert cpu_ticks(worker) == ticks, "and nobody works on it any more"
    assert say(speaking)[0] == 200


def test_who_leaves_after_it_was_spoken_leaves_nothing(speaking: Daemon) -> None:
    remains, before = Remains(speaking), cancelled(speaking, "hibari", "sending")
    with client(speaking, LITTLE) as one:
        one.send_speech(LONG_TEXT)
        until(lambda: leases(speaking, "hibari") == 0 and held_bytes(speaking) > 0)
    until(lambda: cancelled(speaking, "hibari", "sending") == before + 1)
    remains.check()


def test_a_worker_that_dies_in_the_middle_cuts_the_answer_off(speaking: Daemon) -> None:
    """Or the client would take half an answer for a whole one. What had been made before is sent."""
    remains = Remains(speaking)
    victim = speaking.model("hibari")["worker_pid"]
    with client(speaking, LITTLE) as one:
        one.send_speech(LONG_TEXT)
        answer = one.answer()
        assert answer.read(1000)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises((IncompleteRead, ConnectionResetError)):
            answer.read()
    remains.check()
    assert say(speaking)[0] == 200
    assert speaking.model("hibari")["worker_pid"] != victim


def test_a_worker_that_dies_before_the_first_byte_is_forgiven(speaking: Daemon) -> None:
    victim = speaking.model("hibari")["worker_pid"]
    expected = say(speaking)
    os.kill(victim, signal.SIGSTOP)
    with client(speaking) as one:
        one.send_speech("Hello there.")
        until(lambda: leases(speaking, "hibari") == 1)
        kill(victim)
        answer = one.answer()
        assert (answer.status, answer.read()) == expected


def test_an_error_before_the_first_byte_has_its_own_status(speaking: Daemon) -> None:
    remains = Remains(speaking)
    with client(speaking) as one:
        one.send_speech("今天天气很好。")
        status, error = one.error()
    assert (status, error["code"], error["param"]) == (400, "unspeakable_text", "input")
    remains.check()


@contextlib.contextmanager
def impatient(directory: Path, state_dir: Path, settings: str) -> Iterator[Daemon]:
    with running(directory, state_dir, settings) as daemon:
        assert say(daemon)[0] == 200
        yield daemon


def test_who_takes_nothing_for_too_long_is_cut_off(tmp_path: Path, state_dir: Path) -> None:
    """Or a few who read nothing would have all the memory there is for audio, for ever."""
    with impatient(tmp_path, state_dir, '[server]\nanswer_stall = "300ms"\n') as daemon:
        remains = Remains(daemon)
        with client(daemon, LITTLE) as one:
            one.send_speech(LONG_TEXT)
            remains.check()
            answer = one.answer()
            with pytest.raises((IncompleteRead, ConnectionResetError)):
                answer.read()
        gone = [cancelled(daemon, "hibari", stage) for stage in ("running", "sending")]
        assert sum(gone) == 1


def test_with_the_memory_full_slow_readers_are_cut_off_and_others_served(tmp_path: Path, state_dir: Path) -> None:
    """At once: what they would have read is freed."""
    with impatient(tmp_path, state_dir, '[server]\naudio_memory = "1MB"\n') as daemon:
        remains = Remains(daemon)
        with client(daemon, LITTLE) as one:
            one.send_speech(LONG_TEXT)
            until(lambda: held_bytes(daemon) > 900_000)
            status, audio = say(daemon, LONG_TEXT)
            assert (status, len(audio) > 10_000_000) == (200, True), "who reads is not disturbed by who does not"
            remains.check()
            answer = one.answer()
            with pytest.raises((IncompleteRead, ConnectionResetError)):
                answer.read()
        assert cancelled(daemon, "hibari", "running") == 1
        assert "the memory for audio is full" in daemon.log.read_text()
