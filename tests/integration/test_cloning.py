"""Speech in the voice of a recording, with an emotion: what reaches the engine, and what is refused before."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sounds
from audioctl import arguments
from audioproto.errors import EngineFailed
from clients import held_bytes, leases, samples
from daemons import AUDIO, Daemon, running
from imitations import MODEL, data_url, in_base64, refused, speak, spoken, told, tone
from scraping import until
from scripted_daemons import Gate
from speech_sockets import connected
from terminals import terminal

EMOTIONS = ["happy", "angry", "sad", "afraid", "disgusted", "melancholic", "surprised", "calm"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path, engines_made: Path) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("cloning"), state_dir, made=engines_made) as started:
        yield started


def store(daemon: Daemon, name: str, audio: bytes, **fields: str) -> str:
    """The id of a new voice."""
    consent = _post(daemon, "voice_consents", {"name": name, "language": "en"}, "recording", tone(300))
    return str(_post(daemon, "voices", {"name": name, "consent": consent["id"]} | fields, "audio_sample", audio)["id"])


def _post(daemon: Daemon, path: str, fields: dict[str, str], file_field: str, file: bytes) -> dict[str, Any]:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    head = f'--b\r\nContent-Disposition: form-data; name="{file_field}"; filename="x"\r\n\r\n'.encode()
    body = b"".join(parts) + head + file + b"\r\n--b--\r\n"
    kind = "multipart/form-data; boundary=b"
    status, answer = daemon.request("POST", f"/v1/audio/{path}", body, Content_Type=kind)
    assert status == 200, answer
    made: dict[str, Any] = json.loads(answer)
    return made


# --- which language ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "code"),
    [("zh", "zh"), ("zh-CN", "zh"), ("Chinese", "zh"), ("EN", "en"), ("auto", ""), ("", ""), (None, "")],
)
def test_a_language_reaches_the_engine_by_its_code(daemon: Daemon, language: str | None, code: str) -> None:
    assert spoken(daemon, voice=data_url(tone(440)), language=language)["language"] == code


@pytest.mark.parametrize("language", ["fr", "French", "e", "x" * 101])
def test_a_language_that_the_model_does_not_speak_is_refused(daemon: Daemon, language: str) -> None:
    status, code, param, message = refused(daemon, voice=data_url(tone(440)), language=language)
    assert (status, code, param) == (400, "invalid_request", "language")
    assert len(language) > 100 or "English, Chinese" in message


# --- whose voice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"voice": data_url(tone(440))},
        {"voice": {"audio": data_url(tone(440))}},
        {"voice": {"audio": in_base64(tone(440))}},
        {"ref_audio": data_url(tone(440)), "voice": "alloy"},
        {"ref_audio": in_base64(tone(440)), "voice": None},
        {"voice": {"audio": base64.encodebytes(tone(440)).decode()}},
        {"ref_audio": in_base64(tone(440)).rstrip("="), "voice": "alloy"},
        {"voice": data_url(sounds.muxed("ogg", "libopus", sounds.tone(2, 48_000, 440), 48_000), "audio/ogg")},
        {"voice": data_url(sounds.wav(sounds.tone(2, 44_100, 440), 44_100, "f32", channels=2))},
    ],
    ids=["url", "object", "base64", "ref_audio", "without voice", "lines", "unpadded", "opus", "stereo"],
)
def test_a_recording_that_comes_along_is_imitated(daemon: Daemon, fields: dict[str, object]) -> None:
    asked = spoken(daemon, **fields)
    assert asked["reference"]["heard"]["hz"] == pytest.approx(440, abs=2)
    assert asked["reference"]["heard"]["seconds"] == pytest.approx(2, abs=0.05)
    assert (asked["voice"], asked["reference"]["voice"], asked["reference"]["transcript"]) == ("", "", "")
    assert asked["emotion"] is None


def test_what_is_said_in_a_recording_goes_with_it(daemon: Daemon) -> None:
    audio = in_base64(tone(440))
    for fields in (
        {"ref_audio": audio, "ref_text": " What I said. "},
        {"voice": {"audio": audio, "transcript": "What I said."}},
    ):
        assert spoken(daemon, **fields)["reference"]["transcript"] == "What I said."


def test_a_stored_voice_is_imitated_by_its_id_and_by_its_name(daemon: Daemon) -> None:
    older = store(daemon, "Berta", tone(500))
    newer = store(daemon, "Berta", tone(600), transcript="Hello from Berta.")
    for voice, identity, hz in ((older, older, 500), (newer, newer, 600), ("Berta", newer, 600), ("BERTA", newer, 600)):
        for named in (voice, {"id": voice}):
            asked = spoken(daemon, voice=named)
            assert (asked["voice"], asked["reference"]["voice"]) == (identity, identity)
            assert asked["reference"]["heard"] == {"hz": hz, "seconds": 2.0}
    assert asked["reference"]["transcript"] == "Hello from Berta."


def test_openais_voices_are_those_that_somebody_has_stored(daemon: Daemon) -> None:
    for voice in ("alloy", None, ""):
        status, code, param, message = refused(daemon, voice=voice)
        assert (status, code, param) == (400, "voice_not_found", "voice")
        assert "audioctl voices add" in message
    store(daemon, "Alloy", tone(700))
    assert spoken(daemon, voice="alloy")["reference"]["heard"]["hz"] == 700
    status, _ = daemon.request(
        "POST",
        "/v1/audio/speech",
        json.dumps({"model": "tts-1", "voice": "alloy", "input": "Hello."}).encode(),
        Content_Type="application/json",
    )
    assert status == 200, "a model that has voices of its own goes on speaking as alloy"


def test_a_model_that_does_not_imitate_says_which_does(daemon: Daemon) -> None:
    said = refused(daemon, model="hibari")
    assert said[:3] == (400, "voice_not_spoken", "voice")
    assert "can: cloning" in said[3]


def test_a_voice_whose_recording_is_gone_says_so(daemon: Daemon) -> None:
    voice = store(daemon, "Lost", tone(500))
    (daemon.directory / "state" / "voices" / "samples" / f"{voice}.wav").unlink()
    status, code, _, message = refused(daemon, voice=voice)
    assert (status, code) == (507, "store_failed")
    assert str(daemon.directory) not in message
    assert daemon.request("DELETE", f"/v1/audio/voices/{voice}")[0] == 200


# --- recordings that are of no use ------------------------------------------------------------------------------------

BAD = {
    "no base64": ("data:audio/wav;base64,!!!!", "invalid_audio"),
    "half of base64": ("data:audio/wav;base64,A", "invalid_audio"),
    "no audio": (data_url(b"nothing of the kind" * 100), "invalid_audio"),
    "nothing": ("data:audio/wav;base64,", "invalid_audio"),
    "not base64 at all": ("data:audio/wav,RIFF", "invalid_audio"),
    "cut off": (data_url((AUDIO / "jfk.wav").read_bytes()[:30]), "invalid_audio"),
    "silence": (data_url(sounds.wav(np.zeros(48_000), 24_000)), "invalid_audio"),
    "too short": (data_url(tone(440, 0.5)), "invalid_audio"),
    "five minutes": (
        data_url(sounds.muxed("ogg", "libopus", sounds.tone(300, 48_000), 48_000), "audio/ogg"),
        "audio_too_long",
    ),
}


@pytest.mark.parametrize("field", ["voice", "ref_audio", "emotion"])
@pytest.mark.parametrize("bad", BAD)
def test_a_recording_that_is_of_no_use_is_named(daemon: Daemon, field: str, bad: str) -> None:
    audio, code = BAD[bad]
    fields = {field: {"audio": audio} if field == "emotion" else audio}
    assert refused(daemon, **fields)[:3] == (400, code, field)


@pytest.mark.parametrize("url", ["http://127.0.0.1/x.wav", "https://example.org/x.wav", "file:///etc/passwd"])
def test_nothing_is_fetched(daemon: Daemon, url: str) -> None:
    for fields in ({"voice": url}, {"ref_audio": url}, {"voice": {"audio": url}}, {"emotion": {"audio": url}}):
        status, code, _, message = refused(daemon, **fields)
        assert (status, code) == (400, "invalid_request")
        assert "not fetched" in message


def test_a_recording_may_be_as_large_as_a_stored_one_and_no_larger(daemon: Daemon) -> None:
    rate = 87_000  # 60 s of it are just under 10 MiB
    largest = sounds.wav(sounds.tone(60, rate, 440), rate)
    assert 9.9 * 2**20 < len(largest) < 10 * 2**20
    assert spoken(daemon, voice=data_url(largest))["reference"]["heard"] == {"hz": 440, "seconds": 60.0}
    larger = largest + bytes(10 * 2**20 - len(largest) + 1)
    assert refused(daemon, voice=data_url(larger))[:3] == (413, "upload_too_large", "voice")
    status, code, _, message = refused(daemon, voice=data_url(larger * 3))
    assert (status, code) == (413, "upload_too_large")
    assert "which is 27.7 MiB" in message


@pytest.mark.parametrize(
    "more",
    [
        b'"emotion": {"vector": {%s}}' % b",".join(b'"%d":0' % i for i in range(1_000_000)),
        b'"emotion": {"vector": [%s]}' % b",".join([b"0"] * 6_000_000),
        b'"zz": %s' % (b"[" * 6_000_000),
    ],
    ids=["names", "list", "nested"],
)
def test_nothing_but_recordings_makes_a_body_larger(daemon: Daemon, more: bytes) -> None:
    body = b'{"model": "cloning", "input": "x", %s}' % more
    status, answer = daemon.request("POST", "/v1/audio/speech", body, Content_Type="application/json")
    assert (status, json.loads(answer)["error"]["code"]) == (413, "upload_too_large")
    assert "1 MiB beside recordings" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"input": "x" * 20_000_000}, "input", "has 20000000 characters; no model takes more than"),
        ({"model": "x" * 20_000_000}, "model", "length <= 200"),
        ({"voice": "x" * 20_000_000}, "voice", "too long to be a name"),
        ({"voice": {"id": "x" * 20_000_000}}, "voice", "length <= 200"),
        ({"keep_alive": "x" * 20_000_000}, "keep_alive", "length <= 100"),
        ({"response_format": "x" * 20_000_000}, "response_format", "must be one of mp3"),
        ({"emotion": {"mode": "x" * 20_000_000}}, "emotion", "Invalid enum value 'xxx"),
        ({"emotion": {"x" * 20_000_000: 1}}, "emotion", "unknown field `xxx"),
    ],
    ids=["input", "model", "voice", "id", "keep_alive", "response_format", "mode", "unknown"],
)
def test_what_is_far_too_long_is_refused_in_few_words(
    daemon: Daemon, fields: dict[str, object], param: str, said: str
) -> None:
    status, code, at, message = refused(daemon, **fields)
    assert (status, code, at) == (400, "invalid_request", param)
    assert said in message
    assert len(message) < 1000


def test_a_text_may_have_every_character_of_json(daemon: Daemon) -> None:
    text = '{"a": [0, 1]},\n' * 1000
    recording = sounds.wav(sounds.tone(30, 48_000, 440), 48_000)
    fields = {"model": MODEL, "input": text, "voice": data_url(recording), "response_format": "pcm"}
    body = json.dumps(fields).replace("/", "\\/").encode()
    assert len(body) > 2**21
    status, pcm = daemon.request("POST", "/v1/audio/speech", body, Content_Type="application/json")
    assert (status, told(pcm)[0]["reference"]["heard"]) == (200, {"hz": 440, "seconds": 30.0})


def test_what_recordings_take_is_counted_and_given_back(daemon: Daemon, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        speaking = threads.submit(spoken, daemon, f"read {gate}\nHello.", emotion={"audio": in_base64(tone(880))})
        until(lambda: leases(daemon, MODEL) == 1)
        assert held_bytes(daemon) == 2 * 2 * 48_000 * 2, "two of 2 s, decoded"
        gate.open()
        assert speaking.result(60)["text"] == "Hello."
    until(lambda: held_bytes(daemon) == 0)
    spoken(daemon, emotion={"audio": in_base64(tone(880))})
    refused(daemon, voice=data_url(b"nothing of the kind" * 100_000))
    until(lambda: held_bytes(daemon) == 0)


def test_two_recordings_of_the_voice_are_one_too_many(daemon: Daemon) -> None:
    assert refused(daemon, voice=data_url(tone(440)), ref_audio=in_base64(tone(440)))[:3] == (
        400,
        "invalid_request",
        "ref_audio",
    )


# --- emotions ---------------------------------------------------------------------------------------------------------


def emotion(daemon: Daemon, **fields: object) -> dict[str, Any]:
    asked = spoken(daemon, **fields)["emotion"]
    assert asked is not None
    return {name: value for name, value in asked.items() if value not in (None, [], "")}


SAD = [0.0, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0, 0.3]


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ({"vector": {"sad": 0.7, "calm": 0.3}}, {"vector": SAD, "alpha": 1.0}),
        ({"mode": "vector", "vector": SAD, "alpha": 0.5}, {"vector": SAD, "alpha": 0.5}),
        ({"mode": "text", "text": "tired"}, {"text": "tired", "alpha": 1.0}),
        ({"text": "tired", "vector": None}, {"text": "tired", "alpha": 1.0}),
        ({"mode": "text", "alpha": 0.2}, {"alpha": 0.2}),
        ({"mode": "audio", "audio": data_url(tone(880, 3))}, {"heard": {"hz": 880, "seconds": 3.0}, "alpha": 1.0}),
        ({"audio": in_base64(tone(990)), "alpha": 0}, {"heard": {"hz": 990, "seconds": 2.0}, "alpha": 0.0}),
    ],
)
def test_an_emotion_reaches_the_model(daemon: Daemon, asked: dict[str, object], got: dict[str, object]) -> None:
    assert emotion(daemon, emotion=asked) == got


def test_voice_and_emotion_are_told_apart(daemon: Daemon) -> None:
    asked = spoken(daemon, emotion={"audio": in_base64(tone(880, 1.5))})
    assert asked["reference"]["heard"] == {"hz": 440, "seconds": 2.0}
    assert asked["emotion"]["heard"] == {"hz": 880, "seconds": 1.5}


@pytest.mark.parametrize("asked", [None, {}, {"mode": "auto"}, {"alpha": 0.5}])
def test_without_any_it_sounds_as_the_recording_does(daemon: Daemon, asked: object) -> None:
    assert spoken(daemon, emotion=asked)["emotion"] is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"vector": {"happyy": 1}}, "there is no 'happyy'; there are happy, angry"),
        ({"vector": {"happy": 1.1}}, "<= 1.0"),
        ({"vector": {"happy": -0.1}}, ">= 0.0"),
        ({"vector": {"happy": "very"}}, "Expected `float`"),
        ({"vector": [1.0] * 7}, "of length >= 8"),
        ({"vector": [1.0] * 9}, "of length <= 8"),
        ({"mode": "vector"}, "there is no vector"),
        ({"mode": "vector", "vector": {}}, "there is no vector"),
        ({"mode": "audio"}, "there is no audio"),
        ({"mode": "audio", "text": "x"}, "the mode is audio, but text given"),
        ({"mode": "text", "vector": {"happy": 1}}, "the mode is text, but vector given"),
        ({"text": "x", "vector": {"happy": 1}}, "vector and text are given"),
        ({"mode": "loud"}, "Invalid enum value"),
        ({"alpha": 1.5}, "<= 1.0"),
        ({"vectors": {"happy": 1}}, "unknown field"),
        ({"text": "x" * 5000}, "length <= 4096"),
        ("happy", "Expected `object"),
    ],
)
def test_what_is_wrong_with_an_emotion_is_told(daemon: Daemon, asked: object, said: str) -> None:
    status, code, param, message = refused(daemon, emotion=asked)
    assert (status, code, param) == (400, "invalid_request", "emotion")
    assert said in message


def test_a_model_that_takes_no_emotion_says_which_does(daemon: Daemon) -> None:
    said = refused(daemon, model="hibari", voice="alloy", emotion={"vector": {"happy": 1}})
    assert said[:3] == (400, "invalid_request", "emotion")
    assert "do: cloning" in said[3]
    assert speak(daemon, model="hibari", voice="alloy", emotion={}, instructions="happy")[0] == 200


@pytest.mark.parametrize(
    ("instructions", "got"),
    [
        ("happy", {"vector": [1.0, 0, 0, 0, 0, 0, 0, 0], "alpha": 1.0}),
        ("Sad 0.7, calm: .3", {"vector": SAD, "alpha": 1.0}),
        ("Speak as if you had won.", {"text": "Speak as if you had won.", "alpha": 1.0}),
        ('{"vector": {"sad": 0.7, "calm": 0.3}, "alpha": 0.5}', {"vector": SAD, "alpha": 0.5}),
        ('{"mode": "text"}', {"alpha": 1.0}),
    ],
)
def test_instructions_are_an_emotion_too(daemon: Daemon, instructions: str, got: dict[str, object]) -> None:
    assert emotion(daemon, instructions=instructions) == got


def test_an_emotion_goes_before_instructions(daemon: Daemon) -> None:
    assert emotion(daemon, instructions="happy", emotion={"text": "sad"}) == {"text": "sad", "alpha": 1.0}


@pytest.mark.parametrize("instructions", ["happy 2", '{"vector": {"happyy": 1}}', '{"loud": true}', '{"alpha": 7}'])
def test_instructions_that_are_nearly_an_emotion_are_refused(daemon: Daemon, instructions: str) -> None:
    status, _, param, _ = refused(daemon, instructions=instructions)
    assert (status, param) == (400, "instructions")


# --- sampling, silence, length ----------------------------------------------------------------------------------------


def test_sampling_and_silence_reach_the_model(daemon: Daemon) -> None:
    sampling = {"temperature": 0.9, "top_p": 0.5, "top_k": 20, "repetition_penalty": 2.5, "seed": 2**53}
    asked = spoken(daemon, interval_silence=250, **sampling)
    assert asked["sampling"] == sampling
    assert asked["pause_s"] == 0.25
    asked = spoken(daemon, seed=-1, temperature=None)
    assert set(asked["sampling"].values()) == {None}
    assert asked["pause_s"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -2),
        ("seed", 2**53 + 1),
        ("seed", 0.5),
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("repetition_penalty", 0),
        ("interval_silence", -1),
        ("interval_silence", 5001),
        ("interval_silence", "long"),
        ("progress", "yes"),
        ("ref_text", "x" * 5000),
    ],
)
def test_what_is_out_of_range_is_named(daemon: Daemon, field: str, value: object) -> None:
    assert refused(daemon, **{field: value})[:3] == (400, "invalid_request", field)


def test_a_model_for_long_texts_takes_them(daemon: Daemon) -> None:
    assert len(told(speak(daemon, "好" * 20_000, voice=data_url(tone(440)))[1])[0]["text"]) == 20_000
    status, _, param, message = refused(daemon, "好" * 20_001)
    assert (status, param) == (400, "input")
    assert "the limit is 20000" in message
    assert refused(daemon, "x" * 4097, model="hibari", voice="alloy")[:3] == (400, "invalid_request", "input")


def test_a_long_text_is_heard_before_it_is_whole(daemon: Daemon, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    body = {
        "model": MODEL,
        "voice": data_url(tone(440)),
        "input": "好" * 2500 + f"\nread {gate}\n" + "的" * 2500,
        "response_format": "pcm",
    }
    request = urllib.request.Request(
        f"{daemon.url}/v1/audio/speech", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        first = b""
        while b"\n" not in np.frombuffer(first, "<i2").astype(np.uint8).tobytes():
            first += answer.read(2)
        assert told(first)[0]["part"] == 1
        gate.open()
        assert told(answer.read())[0]["part"] == 3


def test_a_second_worker_hears_the_recordings_too(daemon: Daemon, tmp_path: Path) -> None:
    asked = spoken(daemon, f"die {tmp_path / 'dead'}\nHello.", emotion={"audio": in_base64(tone(880))})
    assert (tmp_path / "dead").exists()
    assert (asked["reference"]["heard"]["hz"], asked["emotion"]["heard"]["hz"]) == (440, 880)


# --- whatever is sent -------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
RECORDINGS = st.sampled_from([tone(440, 1.2), tone(440, 0.1), b"RIFF", bytes(5000)]).map(data_url) | ANYTHING
FIELDS = st.fixed_dictionaries(
    {"voice": RECORDINGS | st.fixed_dictionaries({}, optional={"audio": RECORDINGS, "id": ANYTHING})},
    optional={
        "ref_audio": RECORDINGS,
        "emotion": ANYTHING
        | st.fixed_dictionaries(
            {},
            optional={
                "mode": st.sampled_from(["auto", "audio", "vector", "text", "x"]),
                "audio": RECORDINGS,
                "vector": ANYTHING | st.dictionaries(st.sampled_from([*EMOTIONS, "x"]), st.floats(-0.5, 1.5)),
                "text": ANYTHING,
                "alpha": ANYTHING | st.floats(0, 1),
            },
        ),
        "instructions": st.text(max_size=30) | st.sampled_from(EMOTIONS) | ANYTHING.map(json.dumps),
        **{name: ANYTHING | st.integers(0, 5) for name in ("seed", "temperature", "top_k", "interval_silence")},
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FIELDS)
def test_whatever_is_sent_is_spoken_or_refused(daemon: Daemon, fields: dict[str, object]) -> None:
    status, body = speak(daemon, **fields)
    assert status in (200, 400), body
    if status == 400:
        assert json.loads(body)["error"]["param"] in {*fields, "input"}


# --- progress ---------------------------------------------------------------------------------------------------------


def events(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in body.decode().splitlines() if line]


def test_progress_comes_between_the_audio_where_it_is_asked_for(daemon: Daemon) -> None:
    fields = {"voice": data_url(tone(440)), "stream_format": "sse"}
    status, body = speak(daemon, "One.\nTwo.", progress=True, **fields)
    assert status == 200
    got = events(body)
    assert [event["type"] for event in got[:3]] == ["speech.progress", "speech.audio.delta", "speech.progress"]
    assert got[0] == {"type": "speech.progress", "phase": "speaking", "part": 1, "parts": 2}
    audio = b"".join(base64.b64decode(event["audio"]) for event in got if "audio" in event)
    assert [part["text"] for part in told(audio)] == ["One.", "Two."]
    assert got[-1]["type"] == "speech.audio.done"
    without = events(speak(daemon, "One.\nTwo.", **fields)[1])
    assert {event["type"] for event in without} == {"speech.audio.delta", "speech.audio.done"}
    assert len(told(speak(daemon, "One.\nTwo.", progress=True, voice=fields["voice"])[1])) == 2


def test_an_error_after_progress_alone_is_no_first_audio(daemon: Daemon) -> None:
    def timed() -> float:
        return samples(daemon).get(f'audiod_first_byte_seconds_count{{model="{MODEL}"}}', 0)

    before = timed()
    fields = {"voice": data_url(tone(440)), "stream_format": "sse", "progress": True}
    assert ["error" in event for event in events(speak(daemon, "fail", **fields)[1])] == [False, True]
    assert timed() == before
    assert speak(daemon, "One.", **fields)[0] == 200
    assert timed() == before + 1


# --- over a WebSocket -------------------------------------------------------------------------------------------------


async def test_an_utterance_has_voice_emotion_and_progress(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        more: dict[str, Any] = {"emotion": {"audio": in_base64(tone(880))}, "progress": True, "seed": 7}
        await socket.start(model=MODEL, voice=data_url(tone(440)), **more)
        await socket.text("One is here. ")
        await socket.text("Two is here too.")
        await socket.done()
        pcm, kinds = b"", []
        while True:
            said = await socket.next()
            kinds.append("audio" if isinstance(said, bytes) else said["type"])
            if isinstance(said, bytes):
                pcm += said
            elif said["type"] == "audio.start":
                assert said["voice"] == ""
            elif said["type"] == "audio.end":
                assert said["status"] == "completed"
                break
    assert kinds[:3] == ["audio.start", "speech.progress", "audio"]
    for asked in told(pcm):
        assert (asked["reference"]["heard"]["hz"], asked["emotion"]["heard"]["hz"]) == (440, 880)
        assert asked["sampling"]["seed"] == 7
    assert "".join(asked["text"] for asked in told(pcm)).replace(" ", "") == "Oneishere.Twoisheretoo."


async def test_a_recording_of_no_use_ends_the_utterance(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start("Hello.", model=MODEL, voice=data_url(tone(440, 0.5)))
        heard = await socket.rest()
        assert heard.end["status"] == "failed"
        assert (heard.errors[0]["code"], heard.errors[0]["param"]) == ("invalid_audio", "voice")
        await socket.start("Hello.", model=MODEL, voice=data_url(tone(440)))
        assert (await socket.rest()).end["status"] == "completed"
    await asyncio.to_thread(until, lambda: held_bytes(daemon) == 0)


async def test_a_recording_is_gone_with_its_utterance(daemon: Daemon) -> None:
    """While its connection waits for the next one: two dozen of them, of almost 1 MiB."""
    voice = data_url(tone(440, 15))

    def in_memory() -> int:
        lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    async with contextlib.AsyncExitStack() as stack:
        before = 0
        for number in range(30):
            socket = await stack.enter_async_context(connected(daemon))
            await socket.start("Hello.", model=MODEL, voice=voice)
            assert (await socket.rest()).end["status"] == "completed"
            if number == 5:
                before = in_memory()
        grown = in_memory() - before
        assert grown < 12 * len(voice)


# --- deleted voices ---------------------------------------------------------------------------------------------------


def made_of(daemon: Daemon, voice: str) -> Path:
    """Where the engine keeps what it makes of a stored voice."""
    return daemon.directory / "state" / "voices" / "made" / MODEL / f"{voice}.safetensors"


def test_what_was_made_of_a_voice_is_deleted_with_it(daemon: Daemon) -> None:
    voice, other = store(daemon, "Gone", tone(500)), store(daemon, "Kept", tone(500))
    for one in (voice, other):
        spoken(daemon, voice=one)
        assert made_of(daemon, one).exists()
    assert daemon.request("DELETE", f"/v1/audio/voices/{voice}")[0] == 200
    assert not made_of(daemon, voice).exists()
    assert made_of(daemon, other).exists()
    assert refused(daemon, voice=voice)[:3] == (400, "voice_not_found", "voice")


def test_a_voice_deleted_while_it_speaks_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    voice, gate = store(daemon, "Leaving", tone(500)), Gate(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        speaking = threads.submit(speak, daemon, f"read {gate}\nHello.", voice=voice)
        until(made_of(daemon, voice).exists)
        assert daemon.request("DELETE", f"/v1/audio/voices/{voice}")[0] == 200
        made_of(daemon, voice).write_bytes(b"made later")
        gate.open()
        status, pcm = speaking.result(60)
    assert (status, told(pcm)[0]["reference"]["voice"]) == (200, voice)
    until(lambda: not made_of(daemon, voice).exists())


# --- audioctl ---------------------------------------------------------------------------------------------------------


def test_audioctl_stores_lists_speaks_with_and_removes_a_voice(daemon: Daemon, tmp_path: Path) -> None:
    for name, hz in (("anna.wav", 750), ("agrees.wav", 300), ("sad.wav", 850)):
        (tmp_path / name).write_bytes(tone(hz))
    sample, consent, target = str(tmp_path / "anna.wav"), str(tmp_path / "agrees.wav"), tmp_path / "said.pcm"
    added = daemon.ctl("voices", "add", "Anna", sample, "--consent", consent, "--language", "en-US")
    assert added.returncode == 0, added.stderr
    voice = added.stdout.strip()
    consent_id = json.loads(daemon.get(f"/v1/audio/voices/{voice}")[1])["consent"]
    again = daemon.ctl("--json", "voices", "add", "Other", sample, "--consent", consent_id, "--transcript", "Hello.")
    other = json.loads(again.stdout)
    assert (other["name"], other["transcript"]) == ("Other", "Hello.")
    listed = {one["id"]: one for one in json.loads(daemon.ctl("voices", "--json").stdout)["voices"]}
    assert listed[voice] == {
        "id": voice,
        "name": "Anna",
        "language": "en-US",
        "type": "audio_sample",
        "consent": consent_id,
    }
    assert f"Anna {voice} en-US a recording" in " ".join(daemon.ctl("voices").stdout.split())

    more = ("--model", MODEL, "-o", str(target), "--seed", "7")
    said = daemon.ctl("voices", "say", "anna", "Oh no.", *more, "--emotion", "sad 0.7, calm 0.3")
    assert said.returncode == 0, said.stderr
    asked = told(target.read_bytes())[0]
    assert (asked["reference"]["voice"], asked["reference"]["heard"]["hz"]) == (voice, 750)
    assert (asked["text"], asked["emotion"]["vector"], asked["sampling"]["seed"]) == ("Oh no.", SAD, 7)
    said = daemon.ctl("say", "Oh.", "--voice", voice, *more, "--emotion-from", str(tmp_path / "sad.wav"))
    assert said.returncode == 0, said.stderr
    assert told(target.read_bytes())[0]["emotion"]["heard"]["hz"] == 850

    removed = daemon.ctl("voices", "remove", "ANNA")
    assert removed.returncode == 0, removed.stderr
    assert daemon.get(f"/v1/audio/voices/{voice}")[0] == 404
    assert daemon.get(f"/v1/audio/voice_consents/{consent_id}")[0] == 200, "another voice was made by it"
    removed = daemon.ctl("--json", "voices", "remove", other["id"])
    assert json.loads(removed.stdout) == {"voice": other["id"], "consent": consent_id}
    assert f"the consent of Anna ({consent_id}) is removed" in removed.stderr
    assert daemon.get(f"/v1/audio/voice_consents/{consent_id}")[0] == 404
    missing = daemon.ctl("voices", "remove", "Anna")
    assert (missing.returncode, "no voice 'Anna' is stored" in missing.stderr) == (2, True)


def test_audioctl_lists_and_removes_a_consent_that_no_voice_was_made_by(daemon: Daemon) -> None:
    voice = store(daemon, "Carla", tone(500))
    consent = json.loads(daemon.get(f"/v1/audio/voices/{voice}")[1])["consent"]
    assert consent not in daemon.ctl("voices").stdout
    assert daemon.request("DELETE", f"/v1/audio/voices/{voice}")[0] == 200
    assert f"Carla {consent} en nothing yet: a consent" in " ".join(daemon.ctl("voices").stdout.split())
    assert consent in {one["id"] for one in json.loads(daemon.ctl("voices", "--json").stdout)["consents"]}
    assert daemon.ctl("voices", "remove", consent).returncode == 0
    assert consent not in daemon.ctl("voices").stdout


def test_audioctl_removes_nothing_where_a_name_is_of_two(daemon: Daemon) -> None:
    made = {store(daemon, "Twin", tone(500)), store(daemon, "twin", tone(500))}
    refusal = daemon.ctl("voices", "remove", "Twin")
    assert refusal.returncode == 2
    assert all(voice in refusal.stderr for voice in made)
    for voice in made:
        assert daemon.ctl("voices", "remove", voice).returncode == 0


def test_audioctl_keeps_no_consent_of_a_voice_that_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    def consents() -> object:
        return json.loads(daemon.get("/v1/audio/voice_consents?limit=100")[1])["data"]

    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    good.write_bytes(tone(300))
    bad.write_bytes(tone(300, 0.5))
    before = consents()
    add = ("voices", "add", "Anna", str(bad))
    refusal = daemon.ctl(*add, "--consent", str(good), "--language", "en")
    assert (refusal.returncode, "1 s are needed" in refusal.stderr) == (2, True)
    assert consents() == before
    for more, said in (((), "--consent"), (("--consent", str(good)), "which language")):
        refusal = daemon.ctl(*add, *more)
        assert (refusal.returncode, said in refusal.stderr) == (2, True)
        command = refusal.stderr.partition("try: audioctl ")[2].split()
        assert arguments.parse(command).language, "the command that is named lacks nothing"


def test_whoever_looks_on_sees_how_far_a_long_text_is(daemon: Daemon, tmp_path: Path) -> None:
    voice, target = store(daemon, "Slow", tone(500)), tmp_path / "said.pcm"
    target.write_bytes(b"old")
    command = [sys.executable, "-m", "audioctl", "--socket", str(daemon.socket), "voices", "say"]
    more = ["-o", str(target), "--model", MODEL]
    gate = Gate(tmp_path)
    with terminal([*command, voice, f"One.\nTwo.\nread {gate}\nFour.", *more], daemon.environment()) as screen:
        screen.wait_for("part 2 of 4")
        gate.open()
        assert screen.wait_for_end() == 0
        assert "part 4 of 4" in "\n".join(screen.lines())
    assert [part["text"] for part in told(target.read_bytes())] == ["One.", "Two.", "Four."]
    with terminal([*command, voice, "One.\nfail at this", *more], daemon.environment()) as screen:
        assert screen.wait_for_end() == EngineFailed.exit_status
        assert "told to fail" in " ".join(screen.lines())
    assert len(told(target.read_bytes())) == 3, "what was there before"
