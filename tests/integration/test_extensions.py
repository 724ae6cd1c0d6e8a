"""What a request may say beyond OpenAI's API, as the official SDK sends it, and what comes of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from clients import LONG_TEXT, Client, client, leases, waiting
from daemons import AUDIO, Daemon, running
from scraping import until
from watching import events_of

CLIP = AUDIO / "librispeech-6930-75918-0000.wav"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon"), state_dir, "[residency]\nqueue_requests = 2\n") as started:
        yield started


@pytest.fixture(scope="module")
def sdk(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as one:
        yield one


def speak(sdk: openai.OpenAI, **extensions: Any) -> None:
    sdk.audio.speech.create(model="hibari", voice="alloy", input="Hello there.", extra_body=extensions).read()


def transcribe(sdk: openai.OpenAI, **extensions: Any) -> None:
    assert sdk.audio.transcriptions.create(model="whisper-base", file=CLIP, extra_body=extensions).text


@pytest.mark.parametrize(("model", "ask"), [("hibari", speak), ("whisper-base", transcribe)])
def test_how_long_a_model_stays_is_the_last_requests_word(
    daemon: Daemon, sdk: openai.OpenAI, model: str, ask: Any
) -> None:
    ask(sdk, keep_alive="10m")
    assert 540 < daemon.model(model)["expires_s"] <= 600
    ask(sdk, keep_alive=90)
    assert 30 < daemon.model(model)["expires_s"] <= 90
    ask(sdk, keep_alive=-1)
    assert daemon.model(model)["expires_s"] is None
    ask(sdk)
    assert 240 < daemon.model(model)["expires_s"] <= 300, "the model's own, where a request says nothing"
    with events_of(daemon) as events:
        ask(sdk, keep_alive=0)
        assert [next(events)["state"] for _ in range(2)] == ["parking", "parked"]
        ask(sdk, keep_alive="0s", park_keep_alive=0)
        seen = [next(events)["state"] for _ in range(6)]
        assert seen == ["loading", "ready", "parking", "parked", "stopping", "unloaded"]


@contextlib.contextmanager
def standing_still(daemon: Daemon) -> Iterator[Client]:
    """The speech model does not move while inside: a first request has it, and others wait."""
    daemon.ctl("load", "hibari")
    worker = daemon.model("hibari")["worker_pid"]
    os.kill(worker, signal.SIGSTOP)
    try:
        with client(daemon) as first:
            first.send_speech("Hello there.")
            until(lambda: leases(daemon, "hibari") == 1)
            yield first
    finally:
        os.kill(worker, signal.SIGCONT)
    until(lambda: leases(daemon, "hibari") == waiting(daemon, "hibari") == 0)


def test_who_can_wait_lets_others_go_first(daemon: Daemon) -> None:
    with client(daemon) as patient, client(daemon) as person, standing_still(daemon) as first:
        patient.send_speech(LONG_TEXT, priority="batch")
        until(lambda: waiting(daemon, "hibari") == 1)
        person.send_speech(LONG_TEXT)
        until(lambda: waiting(daemon, "hibari") == 2)
        os.kill(daemon.model("hibari")["worker_pid"], signal.SIGCONT)
        assert first.answer().read()
        assert select.select([patient.sock, person.sock], [], [], 60)[0] == [person.sock]
        for one in (person, patient):
            assert len(one.answer().read()) > 10_000_000


def test_a_full_queue_tells_the_place_that_one_would_have_had(daemon: Daemon, sdk: openai.OpenAI) -> None:
    with client(daemon) as second, client(daemon) as third, standing_still(daemon):
        for number, one in enumerate((second, third), 1):
            one.send_speech("Hello there.")
            until(lambda number=number: waiting(daemon, "hibari") == number)  # type: ignore[misc]
        with pytest.raises(openai.InternalServerError) as refused:
            speak(sdk)
    assert (refused.value.status_code, refused.value.code) == (503, "queue_full")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["position"] == 3
    headers = refused.value.response.headers
    assert int(headers["retry-after-ms"]) == 1000 * int(headers["Retry-After"])


def test_who_did_not_wait_long_enough_is_told_how_far_it_had_come(daemon: Daemon, sdk: openai.OpenAI) -> None:
    with client(daemon) as second, standing_still(daemon):
        second.send_speech("Hello there.")
        until(lambda: waiting(daemon, "hibari") == 1)
        with pytest.raises(openai.InternalServerError) as refused:
            speak(sdk, timeout=0.05)
    assert (refused.value.status_code, refused.value.code) == (503, "queue_timeout")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["position"] == 2
