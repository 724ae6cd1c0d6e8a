"""Realtime transcription against a running daemon: real recordings, streamed as fast as they are taken."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, OpenAI
from openai.types.realtime import RealtimeTranscriptionSessionAudioInputParam
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from clients import Remains, codecs, held_bytes, leases, samples
from daemons import AUDIO, Daemon, running
from realtime import MODEL, SILENCE, RealtimeClient, pcm_at, realtime, sentence, session, speech
from scraping import until
from sounds import muxed
from watching import kill

DETECT: dict[str, object] = {"type": "server_vad", "silence_duration_ms": 400}


@pytest.fixture(scope="module")
def live(daemon: Daemon) -> Daemon:
    """With the model loaded, and one media process that stands ready."""
    with session(daemon) as client:
        client.append(SILENCE)
        client.commit()
        client.until("transcription.completed")
    return daemon


# --- turns ------------------------------------------------------------------------------------------------------------


def test_a_turn_that_the_client_ends(live: Daemon) -> None:
    remains = Remains(live)
    with session(live) as client:
        client.append(sentence())
        client.commit()
        completed = client.until("transcription.completed")
        assert "returned to its place" in completed["transcript"]
        assert completed["usage"] == {"type": "duration", "seconds": 4}
        events = client.of(completed["item_id"])
        assert [event["type"] for event in events[:3]] == [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
        ]
        deltas = [event["delta"] for event in events if event["type"].endswith("transcription.delta")]
        assert deltas
        assert "".join(deltas) == completed["transcript"]
        assert events[-1] is completed
        ids = [event["event_id"] for event in client.seen]
        assert len(set(ids)) == len(ids)
    remains.check()


def test_turns_that_the_server_finds(live: Daemon) -> None:
    with session(live, turn_detection=DETECT) as client:
        client.append(sentence() + SILENCE + sentence() + SILENCE)
        client.settle()
        kinds = ["speech_started", "speech_stopped", "committed", "added", "done"]
        assert [kind for kind in client.types() if kind in kinds] == kinds * 2
        items = [event["item_id"] for event in client.seen if event["type"].endswith("committed")]
        while client.types().count("completed") < 2:
            client.receive()
        for item in items:
            events = client.of(item)
            assert "returned to its place" in events[-1]["transcript"]
            assert [event["type"].rpartition(".")[2] for event in events[:5]] == kinds
            started, stopped = events[0]["audio_start_ms"], events[1]["audio_end_ms"]
            assert 3000 < stopped - started < 4500
        first, second = (client.of(item) for item in items)
        assert second[2]["previous_item_id"] == items[0]
        assert second[0]["audio_start_ms"] - first[0]["audio_start_ms"] == pytest.approx(4500, abs=100)
        assert not [event for event in client.seen if event["type"].startswith("response.")]


@pytest.mark.parametrize("kind", ["silence", "noise", "tone"])
def test_what_is_no_speech_is_no_turn(live: Daemon, kind: str) -> None:
    chance = np.random.default_rng(7)
    sound = {
        "silence": SILENCE * 3,
        "noise": (chance.standard_normal(72_000) * 3000).astype("<i2").tobytes(),
        "tone": (np.sin(np.arange(72_000) * 2 * np.pi * 440 / 24_000) * 8000).astype("<i2").tobytes(),
    }
    with session(live, turn_detection=DETECT) as client:
        client.append(sound[kind])
        client.settle()
        assert client.types() == ["created", "updated", "cleared"]


def test_silence_that_is_committed_has_an_empty_transcript(live: Daemon) -> None:
    with session(live) as client:
        client.append(SILENCE)
        client.commit()
        assert client.until("transcription.completed")["transcript"] == ""
        assert "delta" not in client.types()


@pytest.mark.parametrize(("name", "codec"), [("audio/pcmu", "pcm_mulaw"), ("audio/pcma", "pcm_alaw")])
def test_telephone_audio(live: Daemon, name: str, codec: str) -> None:
    narrow = np.frombuffer(pcm_at(8_000, AUDIO / "librispeech-6930-75918-0000.wav"), "<i2") / 32768
    coded = muxed({"pcm_mulaw": "mulaw", "pcm_alaw": "alaw"}[codec], codec, narrow, 8_000)
    with session(live, turn_detection=DETECT, format={"type": name}) as client:
        client.append(coded + bytes([0xFF if codec == "pcm_mulaw" else 0xD5]) * 8_000)
        assert "returned to its place" in client.until("transcription.completed")["transcript"]


def test_the_format_may_change_between_turns(live: Daemon) -> None:
    with session(live) as client:
        client.append(SILENCE)
        client.set(format={"type": "audio/pcmu"})
        client.append(b"\xff" * 8_000)
        client.commit()
        assert client.until("transcription.completed")["usage"]["seconds"] == 2


def test_audio_may_be_cut_anywhere(live: Daemon) -> None:
    audio, chance = sentence(), random.Random(7)
    with session(live) as client:
        at = 0
        while at < len(audio):
            size = chance.choice([1, 333, 4801, 40_001])
            client.append(audio[at : at + size])
            at += size
        client.commit()
        assert "returned to its place" in client.until("transcription.completed")["transcript"]


def test_exactly_a_tenth_of_a_second_can_be_committed(live: Daemon) -> None:
    with session(live) as client:
        client.append(bytes(4_700))
        client.commit(event_id="too-short")
        assert client.until("error")["error"]["event_id"] == "too-short"
        client.append(bytes(100))
        client.commit()
        assert client.until("transcription.completed")["transcript"] == ""


def test_several_turns_in_flight(live: Daemon) -> None:
    remains = Remains(live)
    with session(live) as client:
        for _ in range(4):
            client.append(SILENCE)
            client.commit()
        while client.types().count("completed") < 4:
            client.receive()
        items = [event["item_id"] for event in client.seen if event["type"].endswith(".committed")]
        assert len(set(items)) == 4
        assert {event["item_id"] for event in client.seen if event["type"].endswith("completed")} == set(items)
    remains.check()


# --- the session ------------------------------------------------------------------------------------------------------


def test_the_session_is_shown_whole_and_changes_by_key(live: Daemon) -> None:
    with realtime(live) as client:
        created = client.receive()
        assert created["type"] == "session.created"
        first = created["session"]
        assert (first["type"], first["object"]) == ("transcription", "realtime.transcription_session")
        assert first["id"].startswith("sess_")
        assert time.time() + 3000 < first["expires_at"] <= time.time() + 3600
        assert first["audio"]["input"]["transcription"] == {"model": "whisper-1"}
        second = client.set(transcription={"language": "en"}, turn_detection={"threshold": 0.6})
        assert second["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "en"}
        assert second["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
        third = client.set(turn_detection=None)
        assert third["audio"]["input"] == second["audio"]["input"] | {"turn_detection": None}


@pytest.mark.parametrize(
    "query",
    [
        "model=whisper-base",
        "model=whisper-base&intent=transcription",
        "intent=transcription&transcription_model=whisper-base",
        "model=unheard-of&transcription_model=whisper-base&intent=transcription",
    ],
)
def test_the_url_may_name_a_model(live: Daemon, query: str) -> None:
    with realtime(live, f"{query}&language=en") as client:
        transcription = client.receive()["session"]["audio"]["input"]["transcription"]
        assert transcription == {"model": "whisper-base", "language": "en"}


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("model=gpt-realtime", "unsupported_task", "model"),
        ("model=hibari", "unsupported_task", "model"),
        ("model=gpt-realtime&intent=transcription", "model_not_found", "model"),
        ("model=hibari&intent=transcription", "unsupported_task", "model"),
        ("intent=translation", "invalid_request", "intent"),
    ],
)
def test_a_session_that_cannot_be_served_says_why_before_it_ends(
    live: Daemon, query: str, code: str, param: str
) -> None:
    with realtime(live, query) as client:
        error = client.receive()
        assert (error["type"], error["error"]["code"], error["error"]["param"]) == ("error", code, param)
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008, "not one that SDKs try again after"


def test_what_is_wrong_is_said_and_the_session_goes_on(live: Daemon) -> None:
    with session(live) as client:
        wrong: list[tuple[str | bytes, str, str | None]] = [
            ('{"type": "input_audio_buffer.comit", "event_id": "evt_1"}', "invalid_value", "evt_1"),
            ('{"type": "response.create", "event_id": "evt_2"}', "unsupported_event", "evt_2"),
            ("{", "invalid_json", None),
            (b"\x00\xff", "invalid_json", None),
            ('{"type": "input_audio_buffer.commit", "event_id": "evt_3"}', "input_audio_buffer_commit_empty", "evt_3"),
            ('{"type": "input_audio_buffer.append", "audio": "?", "event_id": "evt_4"}', "invalid_value", "evt_4"),
            (
                '{"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": "no"}}}}}',
                "model_not_found",
                None,
            ),
            ('{"type": "session.update", "session": {"type": "realtime"}}', "invalid_request", None),
        ]
        for frame, code, event_id in wrong:
            client.socket.send(frame)
            error = client.receive()
            assert error["type"] == "error"
            assert error["error"]["type"] == "invalid_request_error"
            assert (error["error"]["code"], error["error"]["event_id"]) == (code, event_id)
        client.append(SILENCE)
        client.commit()
        client.until("transcription.completed")


def test_cleared_audio_is_in_no_turn(live: Daemon) -> None:
    with session(live) as client:
        client.append(sentence())
        client.settle()
        assert held_bytes(live) == 0
        client.commit()
        assert client.until("error")["error"]["code"] == "input_audio_buffer_commit_empty"


def test_without_transcription_items_are_all_there_is(live: Daemon) -> None:
    with session(live, transcription=None) as client:
        client.append(SILENCE)
        client.commit()
        client.until("conversation.item.done")
        client.settle()
        assert "completed" not in client.types()


def test_too_much_audio_in_one_event(live: Daemon) -> None:
    remains = Remains(live)
    with session(live) as client:
        client.send("input_audio_buffer.append", audio="A" * (20 * 2**20 + 4), event_id="big")
        error = client.receive()["error"]
        assert (error["code"], error["param"], error["event_id"]) == ("audio_too_large", "audio", "big")
        client.append(SILENCE)
        client.commit()
        client.until("transcription.completed")
    too_long = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (22 * 2**20)})
    with pytest.raises(ConnectionClosed), session(live) as client:
        client.exchange(too_long)
    remains.check()


def test_a_turn_that_fails_is_told_of_its_item(live: Daemon) -> None:
    """A worker that dies is forgiven once; its heir dies too."""
    with session(live) as client:
        client.append(sentence())
        worker = live.model(MODEL)["worker_pid"]
        os.kill(worker, signal.SIGSTOP)
        client.commit()
        until(lambda: leases(live, MODEL) == 1)
        live.ctl("drain")
        os.kill(worker, signal.SIGKILL)
        failed = client.until("transcription.failed")
        assert failed["item_id"] == next(e["item_id"] for e in client.seen if e["type"].endswith("committed"))
        assert failed["error"]["code"] == "draining"
        assert failed["error"]["type"] == "server_error"
        live.ctl("undrain")
        client.append(SILENCE)
        client.commit()
        client.until("transcription.completed")


def test_a_worker_that_dies_once_is_forgiven(live: Daemon) -> None:
    with session(live) as client:
        worker = live.model(MODEL)["worker_pid"]
        os.kill(worker, signal.SIGSTOP)
        client.append(sentence())
        client.commit()
        until(lambda: leases(live, MODEL) == 1)
        os.kill(worker, signal.SIGKILL)
        assert "returned to its place" in client.until("transcription.completed")["transcript"]


def test_who_listens_may_die_and_the_session_goes_on(live: Daemon) -> None:
    with session(live) as client:
        until(lambda: len(codecs(live)) == 1)
        (spare,) = codecs(live)
        client.append(SILENCE)
        client.settle()
        kill(spare)
        client.append(SILENCE)
        error = client.until("error")["error"]
        assert (error["type"], error["code"]) == ("server_error", "internal_error")
        client.append(SILENCE)
        client.commit()
        assert client.until("transcription.completed")["transcript"] == ""


# --- clients that leave, and limits -----------------------------------------------------------------------------------


def test_who_leaves_in_the_middle_leaves_nothing(live: Daemon) -> None:
    remains = Remains(live)
    with session(live, turn_detection=DETECT) as client:
        client.append(speech()[:48_000])
        for _ in range(3):
            client.append(speech())
            client.commit()
        until(lambda: leases(live, MODEL) == 1)
        assert held_bytes(live) > 0
        client.socket.socket.close()
        remains.check()
    until(lambda: samples(live)['audiod_requests_in_flight{endpoint="/v1/realtime"}'] == 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """A daemon of little memory and patience."""
    settings = '[server]\naudio_memory = "1MB"\n[realtime]\nsessions = 1\nsession_limit = "2s"\n'
    with running(tmp_path_factory.mktemp("small"), state_dir, settings) as daemon:
        yield daemon


def test_audio_is_bounded(small: Daemon) -> None:
    with session(small) as client:
        client.append(SILENCE * 20)
        client.append(SILENCE * 20)
        error = client.until("error")["error"]
        assert (error["type"], error["code"]) == ("server_error", "queue_full")
        assert held_bytes(small) <= 1_000_000
    until(lambda: held_bytes(small) == 0)


def test_sessions_are_bounded_and_end(small: Daemon) -> None:
    until(lambda: samples(small)['audiod_requests_in_flight{endpoint="/v1/realtime"}'] == 0)
    with session(small, transcription=None) as client:
        with pytest.raises(InvalidStatus) as refused, realtime(small):
            pass
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) >= 1
        client.append(SILENCE)
        client.commit()
        error = client.until("error")["error"]
        assert (error["code"], error["event_id"]) == ("session_expired", None)
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    until(lambda: samples(small)['audiod_requests_in_flight{endpoint="/v1/realtime"}'] == 0)
    with realtime(small) as client:
        assert client.receive()["type"] == "session.created"


def test_when_the_daemon_stops_turns_are_finished_first(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir) as daemon:
        with session(daemon) as idle, session(daemon) as client:
            client.append(sentence())
            client.commit()
            until(lambda: leases(daemon, MODEL) == 1)
            daemon.process.send_signal(signal.SIGTERM)
            assert "returned to its place" in client.until("transcription.completed")["transcript"]
            for one in (idle, client):
                with pytest.raises(ConnectionClosed) as closed:
                    one.receive()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
        daemon.process.wait(60)
        assert daemon.stop() == 0


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """A daemon that wants a key: right-key."""
    directory = tmp_path_factory.mktemp("locked")
    file = directory / "keys"
    file.write_text("web right-key\n")
    with running(directory, state_dir, f'[server]\napi_keys_file = "{file}"\n') as daemon:
        yield daemon


def first_event(client: RealtimeClient) -> str:
    kind: str = client.receive()["type"]
    return kind


def bearer(key: str) -> dict[str, Any]:
    return {"additional_headers": {"Authorization": f"Bearer {key}"}}


def test_who_says_goodbye_has_not_left_in_the_middle(live: Daemon) -> None:
    """The daemon was still tidying up when the connection went, and counted it as broken off."""

    def ended(status: int) -> float:
        begins = 'audiod_requests_total{endpoint="/v1/realtime",'
        return sum(
            value for name, value in samples(live).items() if name.startswith(begins) and f'status="{status}"' in name
        )

    before = ended(101), ended(499)
    for _ in range(5):
        with session(live, turn_detection=DETECT) as client:
            client.append(SILENCE)
            client.settle()
    until(lambda: ended(101) + ended(499) == sum(before) + 5)
    assert (ended(101), ended(499)) == (before[0] + 5, before[1])


def test_a_queue_timeout_of_nothing_is_not_for_ever(tmp_path: Path, state_dir: Path) -> None:
    """`queue_timeout = 0` was taken for no limit."""
    with running(tmp_path, state_dir, '[residency]\nqueue_timeout = "0s"\n') as daemon, session(daemon) as client:
        client.append(sentence())
        client.commit()
        failed = client.until("transcription.failed")
        assert failed["error"]["code"] == "queue_timeout"


def test_a_key_in_the_header(locked: Daemon) -> None:
    with realtime(locked, **bearer("right-key")) as client:
        assert first_event(client) == "session.created"


@pytest.mark.parametrize("options", [{}, bearer("wrong"), bearer(""), bearer("ek_" + "0" * 48)])
def test_a_wrong_key_is_refused(locked: Daemon, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidStatus) as refused, realtime(locked, **options):
        pass
    assert refused.value.response.status_code == 401


def test_a_browser_s_key_and_the_protocol_it_wants_back(locked: Daemon) -> None:
    offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.right-key")]
    with realtime(locked, subprotocols=offered) as client:
        assert client.socket.subprotocol == "realtime"
        assert first_event(client) == "session.created"
    offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.wrong")]
    with pytest.raises(InvalidStatus) as refused, realtime(locked, subprotocols=offered):
        pass
    assert refused.value.response.status_code == 401


def test_an_ephemeral_key_opens_the_sessions_it_was_made_for(locked: Daemon) -> None:
    api = OpenAI(base_url=f"{locked.url}/v1", api_key="right-key")
    sound: RealtimeTranscriptionSessionAudioInputParam = {"transcription": {"model": "whisper-base", "language": "en"}}
    secret = api.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={"type": "transcription", "audio": {"input": sound}},
    )
    assert secret.value.startswith("ek_")
    assert 0 < secret.expires_at - time.time() <= 60
    assert secret.session.type == "transcription"
    for options in (
        bearer(secret.value),
        {"subprotocols": [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{secret.value}")]},
    ):
        with realtime(locked, "", **options) as client:
            opened = client.receive()["session"]
            assert opened["audio"]["input"]["transcription"] == {"model": "whisper-base", "language": "en"}
            assert opened["id"] != secret.session.id
    for path in ("/v1/models", "/v1/realtime/client_secrets"):
        method = "GET" if path.endswith("models") else "POST"
        assert locked.request(method, path, None, Authorization=f"Bearer {secret.value}")[0] == 401
    assert secret.value not in locked.log.read_text()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "never"}}, "expires_after.anchor"),
        ({"expires_after": 60}, "expires_after"),
        ({"session": {"type": "realtime", "model": "gpt-realtime"}}, "session.type"),
        (
            {"session": {"audio": {"input": {"transcription": {"model": "no"}}}}},
            "session.audio.input.transcription.model",
        ),
        (
            {"session": {"audio": {"input": {"transcription": {"language": "xx"}}}}},
            "session.audio.input.transcription.language",
        ),
        ({"session": []}, "session"),
    ],
)
def test_a_client_secret_that_cannot_be_had(live: Daemon, body: dict[str, object], param: str) -> None:
    status, answer = live.request("POST", "/v1/realtime/client_secrets", json.dumps(body).encode())
    error = json.loads(answer)["error"]
    assert status in (400, 404)
    assert error["param"] == param


def test_a_client_secret_by_default(live: Daemon) -> None:
    for body in (b"", b"{}", b'{"unheard": "of"}'):
        status, answer = live.request("POST", "/v1/realtime/client_secrets", body)
        secret = json.loads(answer)
        assert status == 200
        assert secret["expires_at"] == pytest.approx(time.time() + 600, abs=30)
        assert secret["session"]["object"] == "realtime.transcription_session"
    assert live.request("POST", "/v1/realtime/client_secrets", b"{")[0] == 400


def test_the_sdk_s_errors(locked: Daemon, live: Daemon) -> None:
    with pytest.raises(AuthenticationError):
        OpenAI(base_url=f"{locked.url}/v1", api_key="wrong").realtime.client_secrets.create()
    with pytest.raises(BadRequestError) as refused:
        OpenAI(base_url=f"{live.url}/v1", api_key="x").realtime.client_secrets.create(session={"type": "realtime"})
    assert refused.value.param == "session.type"


# --- the official SDK -------------------------------------------------------------------------------------------------


async def test_the_python_sdk(live: Daemon) -> None:
    api = AsyncOpenAI(base_url=f"{live.url}/v1", api_key="x")
    async with api.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        assert created.session.type == "transcription"
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000},
                        "transcription": {"model": MODEL, "language": "en"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
                    }
                },
            }
        )
        updated = await connection.recv()
        assert updated.type == "session.updated"
        audio = sentence() + SILENCE
        for start in range(0, len(audio), 4800):
            await connection.input_audio_buffer.append(audio=base64.b64encode(audio[start : start + 4800]).decode())
        text = ""
        async for event in connection:
            if event.type == "conversation.item.input_audio_transcription.delta":
                text += event.delta or ""
            elif event.type == "conversation.item.input_audio_transcription.completed":
                assert event.transcript == text
                assert "returned to its place" in text
                assert event.usage.type == "duration"
                break
            else:
                assert event.type != "error", event


def test_plain_http_is_told_what_to_do(live: Daemon) -> None:
    status, answer = live.get("/v1/realtime?intent=transcription")
    assert status == 400
    assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}
