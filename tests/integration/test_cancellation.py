"""Clients that leave, at every stage that a request goes through: nothing of it is left, and the stage is counted.

What happens to speech while and after it is spoken is in test_slow_readers.py.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import wave
from pathlib import Path

import numpy as np
import pytest

from clients import (
    SPEECH,
    TRANSCRIPTIONS,
    Remains,
    cancelled,
    client,
    codecs,
    cpu_ticks,
    descriptors,
    held_bytes,
    leases,
    pidfd,
    samples,
    waiting,
)
from daemons import AUDIO, Daemon, form, say, transcribe
from scraping import until
from sounds import muxed, wav

FLAC = muxed("flac", "flac", np.zeros(16_000), 16_000)


@pytest.fixture(scope="module")
def busy(daemon: Daemon) -> Daemon:
    """With everything up that a request may need, and one media process that stands ready."""
    assert transcribe(daemon, FLAC)[0] == 200
    assert say(daemon)[0] == 200
    until(lambda: len(codecs(daemon)) == 1)
    return daemon


def long_recording() -> bytes:
    """A clip of 11 s ten times over: work for many seconds, on whatever machine."""
    made = io.BytesIO()
    with wave.open(str(AUDIO / "jfk.wav")) as clip, wave.open(made, "wb") as long:
        long.setparams(clip.getparams())
        long.writeframes(clip.readframes(clip.getnframes()) * 10)
    return made.getvalue()


def test_while_uploading_a_recording(busy: Daemon) -> None:
    remains, before = Remains(busy), cancelled(busy, "", "uploading")
    body, content_type = form(long_recording())
    with client(busy) as one:
        one.send_head(TRANSCRIPTIONS, content_type, len(body))
        one.sock.sendall(body[: len(body) // 2])
        until(lambda: held_bytes(busy) == len(body))
    until(lambda: cancelled(busy, "", "uploading") == before + 1)
    remains.check()


def test_while_uploading_a_text(busy: Daemon) -> None:
    remains, before = Remains(busy), cancelled(busy, "", "uploading")
    with client(busy) as one:
        one.send_head(SPEECH, "application/json", 1000)
        one.sock.sendall(b'{"model": "tts-1", "input": "Half a')
        until(lambda: samples(busy)[f'audiod_requests_in_flight{{endpoint="{SPEECH}"}}'] == 1)
    until(lambda: cancelled(busy, "", "uploading") == before + 1)
    remains.check()


def test_while_its_recording_is_decoded(busy: Daemon) -> None:
    """The process at it is killed, however busy: this one does nothing but stand still."""
    remains, before = Remains(busy), cancelled(busy, "whisper-base", "decoding")
    (codec,) = codecs(busy)
    with client(busy) as one, pidfd(codec) as handle:
        os.kill(codec, signal.SIGSTOP)
        one.send_transcription(FLAC)
        until(lambda: any("audiod-pcm" in name for name in descriptors(busy)))
        assert held_bytes(busy) > len(FLAC)
        one.leave()
        assert select.select([handle], [], [], 60)[0], "the process at work has ended"
    until(lambda: cancelled(busy, "whisper-base", "decoding") == before + 1)
    remains.check()
    assert transcribe(busy, FLAC)[0] == 200


def test_while_it_waits_for_its_turn(busy: Daemon) -> None:
    remains, before = Remains(busy), cancelled(busy, "whisper-base", "queued")
    recording = long_recording()
    with client(busy) as first, client(busy) as second:
        first.send_transcription(recording)
        until(lambda: leases(busy, "whisper-base") == 1)
        second.send_transcription(FLAC)
        until(lambda: waiting(busy, "whisper-base") == 1)
        assert held_bytes(busy) == 110 * 32_000 + 32_000, "both recordings, decoded, and nothing else"
        second.leave()
        until(lambda: waiting(busy, "whisper-base") == 0)
        until(lambda: held_bytes(busy) == 110 * 32_000)
        assert cancelled(busy, "whisper-base", "queued") == before + 1
    remains.check()


def test_while_it_is_transcribed(busy: Daemon) -> None:
    """The engine stops, or its worker is replaced: in no case does it go on for nobody."""
    remains, before = Remains(busy), cancelled(busy, "whisper-base", "running")
    busy.ctl("load", "whisper-base")
    worker = busy.model("whisper-base")["worker_pid"]
    with client(busy) as one:
        one.send_transcription(long_recording())
        until(lambda: leases(busy, "whisper-base") == 1)
        ticks = cpu_ticks(worker)
        until(lambda: cpu_ticks(worker) > ticks)
    until(lambda: cancelled(busy, "whisper-base", "running") == before + 1)
    remains.check()
    if Path(f"/proc/{worker}").exists():
        ticks = cpu_ticks(worker)
        assert samples(busy)
        assert cpu_ticks(worker) == ticks
    assert transcribe(busy, FLAC)[0] == 200


def test_while_a_stopped_worker_is_at_it(busy: Daemon) -> None:
    """A worker that hears nothing is killed, and the next request has a new one."""
    remains, before = Remains(busy), cancelled(busy, "hibari", "running")
    busy.ctl("load", "hibari")
    worker = busy.model("hibari")["worker_pid"]
    with client(busy) as one, pidfd(worker) as handle:
        os.kill(worker, signal.SIGSTOP)
        one.send_speech("Hello there.")
        until(lambda: leases(busy, "hibari") == 1)
        one.leave()
        assert select.select([handle], [], [], 60)[0]
    until(lambda: cancelled(busy, "hibari", "running") == before + 1)
    assert say(busy)[0] == 200
    remains.check()


def test_a_client_that_leaves_is_no_error_and_has_its_own_status(busy: Daemon) -> None:
    name = f'audiod_requests_total{{endpoint="{TRANSCRIPTIONS}",model="whisper-base",status="499"}}'
    before = samples(busy)
    with client(busy) as one:
        one.send_transcription(wav(np.zeros(16_000 * 60), 16_000))
        until(lambda: samples(busy)[f'audiod_requests_in_flight{{endpoint="{TRANSCRIPTIONS}"}}'] == 1)
    until(lambda: samples(busy).get(name, 0) == before.get(name, 0) + 1)
    errors = {name: count for name, count in samples(busy).items() if name.startswith("audiod_request_errors_total")}
    assert errors == {name: before[name] for name in errors}


# --- extensions of the request ----------------------------------------------------------------------------------------


def test_a_request_that_will_not_wait_long_need_not(busy: Daemon) -> None:
    with client(busy) as first, client(busy) as second, client(busy) as third:
        first.send_transcription(long_recording())
        until(lambda: leases(busy, "whisper-base") == 1)
        second.send_transcription(FLAC, timeout="50ms")
        third.send_transcription(FLAC, timeout="1h")
        status, error = second.error()
        assert (status, error["code"]) == (503, "queue_timeout")
        until(lambda: waiting(busy, "whisper-base") == 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("priority", "urgent"), ("priority", 3)),
        *(("keep_alive", "soon"), ("keep_alive", True), ("park_keep_alive", "5 parsecs"), ("park_keep_alive", [1])),
        *(("timeout", "never"), ("timeout", 0), ("timeout", -3), ("timeout", "x")),
    ],
)
def test_an_extension_that_makes_no_sense_is_named(busy: Daemon, field: str, value: object) -> None:
    status, body = say(busy, "Hello there.", **{field: value})
    assert (status, json.loads(body)["error"]["param"]) == (400, field)
    if isinstance(value, str):
        status, body = transcribe(busy, FLAC, **{field: value})
        assert (status, json.loads(body)["error"]["param"]) == (400, field)
