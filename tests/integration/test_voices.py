"""Voices and consents through OpenAI's Python SDK and raw requests, against a real daemon; they survive its restart."""

from __future__ import annotations

import io
import json
import math
import struct
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.audio import Voice, VoiceConsent

from audioproto.errors import PermissionDenied
from clients import Remains
from clients import client as leaving
from daemons import AUDIO, Daemon, running

JFK = AUDIO / "jfk.wav"
VOICE_KEYS = {"object", "id", "name", "created_at", "type"}


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def consent(client: openai.OpenAI) -> VoiceConsent:
    return client.audio.voice_consents.create(name="Speaker", language="en-US", recording=JFK)


def tone(seconds: float, loudness: float = 0.3, rate_hz: int = 24_000) -> bytes:
    """A WAV of 440 Hz."""
    count = round(seconds * rate_hz)
    samples = (round(32767 * loudness * math.sin(2 * math.pi * 440 * n / rate_hz)) for n in range(count))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate_hz, 0, "NONE", ""))
        writer.writeframes(struct.pack(f"<{count}h", *samples))
    return file.getvalue()


def form(fields: dict[str, str], **files: bytes) -> tuple[bytes, str]:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    for name, content in files.items():
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x.wav"\r\n'
        parts.append(head.encode() + b"Content-Type: audio/wav\r\n\r\n" + content + b"\r\n")
    return b"".join(parts) + b"--b--\r\n", "multipart/form-data; boundary=b"


def post(daemon: Daemon, path: str, fields: dict[str, str], **files: bytes) -> tuple[int, dict[str, Any]]:
    body, kind = form(fields, **files)
    status, answer = daemon.request("POST", f"/v1/audio/{path}", body, Content_Type=kind)
    return status, json.loads(answer)


def got(daemon: Daemon, path: str) -> Any:
    status, body = daemon.get(f"/v1/audio/{path}")
    assert status == 200, body
    return json.loads(body)


# --- consents ---------------------------------------------------------------------------------------------------------


def test_a_consent_is_made_found_renamed_listed_and_deleted(client: openai.OpenAI, daemon: Daemon) -> None:
    consents = client.audio.voice_consents
    made = consents.create(name="Anna", language="de-DE", recording=("c.wav", JFK.read_bytes(), "audio/wav"))
    assert made.id.startswith("cons_")
    assert (made.object, made.name, made.language) == ("audio.voice_consent", "Anna", "de-DE")
    assert set(got(daemon, f"voice_consents/{made.id}")) == {"object", "id", "name", "language", "created_at"}
    assert consents.retrieve(made.id) == made
    renamed = consents.update(made.id, name="Berta")
    assert renamed == made.model_copy(update={"name": "Berta"})
    assert [consent.name for consent in consents.list(limit=1).data] == ["Berta"]
    deleted = consents.delete(made.id)
    assert deleted.model_dump() == {"id": made.id, "deleted": True, "object": "audio.voice_consent"}
    for again in (consents.retrieve, consents.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            again(made.id)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body.keys() == {"message", "type", "param", "code"}
    with pytest.raises(openai.NotFoundError):
        consents.update(made.id, name="x")


def test_pages_end_and_have_every_consent_once(client: openai.OpenAI, daemon: Daemon) -> None:
    made = [
        client.audio.voice_consents.create(name=f"c{number}", language="en", recording=tone(0.2)).id
        for number in range(5)
    ]
    listed = [consent.id for consent in client.audio.voice_consents.list(limit=2)]
    assert len(listed) == len(set(listed))
    assert [identity for identity in listed if identity in made] == made[::-1]
    page = got(daemon, "voice_consents?limit=2")
    assert page.keys() == {"object", "data", "first_id", "last_id", "has_more"}
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (listed[0], listed[1])
    last = got(daemon, f"voice_consents?after={listed[-1]}")
    assert last == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    for identity in made:
        client.audio.voice_consents.delete(identity)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=", "limit=1.5", "after=x", "after=../x"])
def test_a_wrong_page_is_refused(daemon: Daemon, query: str) -> None:
    status, body = daemon.get(f"/v1/audio/voice_consents?{query}")
    assert status == 400
    assert json.loads(body)["error"]["param"] == query.partition("=")[0]


CONSENT = {"name": "Anna", "language": "en-US"}


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({"language": "en-US"}, {"recording": b"RIFF"}, "name"),
        ({"name": "Anna"}, {"recording": b"RIFF"}, "language"),
        (CONSENT, {}, "recording"),
        (CONSENT, {"recording": b""}, "recording"),
        (CONSENT, {"recording": b"no audio at all"}, "recording"),
        (CONSENT | {"language": "!"}, {"recording": b"RIFF"}, "language"),
        (CONSENT | {"name": "x" * 201}, {"recording": b"RIFF"}, "name"),
        (CONSENT | {"name": "   "}, {"recording": b"RIFF"}, "name"),
    ],
)
def test_what_is_wrong_with_a_consent_is_named(
    daemon: Daemon, fields: dict[str, str], files: dict[str, bytes], param: str
) -> None:
    status, answer = post(daemon, "voice_consents", fields, **files)
    assert (status, answer["error"]["param"]) == (400, param)


# --- voices -----------------------------------------------------------------------------------------------------------


def test_a_voice_is_made_listed_previewed_and_deleted(
    client: openai.OpenAI, daemon: Daemon, consent: VoiceConsent
) -> None:
    extensions = {"transcript": "And so, my fellow Americans.", "language": "en-US"}
    made = client.audio.voices.create(name="John", consent=consent.id, audio_sample=JFK, extra_body=extensions)
    assert made.id.startswith("voice_")
    assert (made.object, made.name, made.type) == ("audio.voice", "John", "audio_sample")
    shown = got(daemon, f"voices/{made.id}")
    assert shown == made.model_dump(exclude_none=True) | extensions | {"consent": consent.id, "duration": 11.0}
    listed = next(voice for voice in got(daemon, "voices")["voices"] if voice["id"] == made.id)
    assert listed == {
        "id": made.id,
        "name": "John",
        "language": "en-US",
        "type": "audio_sample",
        "consent": consent.id,
    }
    assert made.id in got(daemon, "voices?legacy=true")["voices"]
    status, preview = daemon.get(f"/v1/audio/voices/{made.id}/preview")
    assert status == 200
    with wave.open(io.BytesIO(preview)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 48_000)
        assert file.getnframes() == 11 * 48_000
    deleted = client.audio.voices.delete(made.id)
    assert deleted.model_dump() == {"id": made.id, "deleted": True, "object": "audio.voice.deleted"}
    with pytest.raises(openai.NotFoundError):
        client.audio.voices.delete(made.id)
    assert daemon.get(f"/v1/audio/voices/{made.id}")[0] == 404
    assert daemon.get(f"/v1/audio/voices/{made.id}/preview")[0] == 404
    assert client.audio.voice_consents.retrieve(consent.id) == consent


def test_a_voice_made_as_openai_documents_it_has_openais_keys(daemon: Daemon, consent: VoiceConsent) -> None:
    fields = {"name": "John", "consent": consent.id, "type": "audio_sample"}
    status, made = post(daemon, "voices", fields, audio_sample=tone(2))
    assert status == 200, made
    assert made.keys() == VOICE_KEYS
    daemon.request("DELETE", f"/v1/audio/voices/{made['id']}")


def test_a_voice_outlives_its_consent(client: openai.OpenAI, daemon: Daemon) -> None:
    consent = client.audio.voice_consents.create(name="x", language="en", recording=tone(1))
    voice = client.audio.voices.create(name="x", consent=consent.id, audio_sample=tone(2))
    client.audio.voice_consents.delete(consent.id)
    assert got(daemon, f"voices/{voice.id}")["consent"] == consent.id
    client.audio.voices.delete(voice.id)


def test_what_no_model_here_can_speak_with_is_a_clear_400(client: openai.OpenAI, consent: VoiceConsent) -> None:
    sampled = client.audio.voices.create(name="John", consent=consent.id, audio_sample=tone(2))
    described = client.audio.voices.create(name="Warm", type="prompt", prompt="A warm and quiet voice.")
    for voice, said in ((sampled, "cannot speak with a stored voice"), (described, "was made of a prompt")):
        with pytest.raises(openai.BadRequestError, match=said) as refused:
            client.audio.speech.create(model="tts-1", voice={"id": voice.id}, input="Hello.")
        assert (refused.value.code, refused.value.param) == ("voice_not_spoken", "voice")
        client.audio.voices.delete(voice.id)
        with pytest.raises(openai.BadRequestError) as refused:
            client.audio.speech.create(model="tts-1", voice={"id": voice.id}, input="Hello.")
        assert refused.value.code == "voice_not_found"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_voice_of_a_prompt_is_taken_as_json_and_as_a_form(daemon: Daemon, as_json: bool) -> None:
    fields = {"type": "prompt", "name": "Warm", "prompt": "A warm voice.", "model": "auto", "script_hint": "Hello."}
    if as_json:
        answer = daemon.request(
            "POST", "/v1/audio/voices", json.dumps(fields).encode(), Content_Type="application/json"
        )
        status, made = answer[0], json.loads(answer[1])
    else:
        status, made = post(daemon, "voices", fields)
    assert status == 200, made
    assert made.keys() == VOICE_KEYS | {"prompt"}
    assert Voice.model_validate(made).prompt == "A warm voice."
    assert daemon.get(f"/v1/audio/voices/{made['id']}/preview")[0] == 404
    assert daemon.request("DELETE", f"/v1/audio/voices/{made['id']}")[0] == 200


SAMPLE = tone(2)


@pytest.mark.parametrize(
    ("changed", "sample", "status", "param"),
    [
        ({"name": ""}, SAMPLE, 400, "name"),
        ({"consent": ""}, SAMPLE, 400, "consent"),
        ({"consent": "cons_none"}, SAMPLE, 400, "consent"),
        ({"consent": "../../etc/passwd"}, SAMPLE, 400, "consent"),
        ({"type": "song"}, SAMPLE, 400, "type"),
        ({}, None, 400, "audio_sample"),
        ({}, b"", 400, "audio_sample"),
        ({}, b"not audio", 400, "audio_sample"),
        ({}, tone(0.5), 400, "audio_sample"),
        ({}, tone(2, loudness=0), 400, "audio_sample"),
        ({}, tone(2, loudness=0.001), 400, "audio_sample"),
        ({}, tone(61, rate_hz=8000), 400, "audio_sample"),
        ({}, bytes(11 * 2**20), 413, "audio_sample"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value),
)
def test_what_is_wrong_with_a_voice_is_named(
    daemon: Daemon, consent: VoiceConsent, changed: dict[str, str], sample: bytes | None, status: int, param: str
) -> None:
    before = got(daemon, "voices?legacy=true")
    files = {} if sample is None else {"audio_sample": sample}
    found, answer = post(daemon, "voices", {"name": "John", "consent": consent.id} | changed, **files)
    assert (found, answer["error"]["param"]) == (status, param)
    assert answer["error"]["message"]
    assert got(daemon, "voices?legacy=true") == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"type": "prompt"}', b'{"type": "audio_sample", "name": "x"}'])
def test_json_that_is_no_prompt_is_refused(daemon: Daemon, body: bytes) -> None:
    status, answer = daemon.request("POST", "/v1/audio/voices", body, Content_Type="application/json")
    assert status == 400
    assert json.loads(answer)["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("sent_bytes", [0, 200, 40_000])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    daemon: Daemon, consent: VoiceConsent, sent_bytes: int
) -> None:
    before = got(daemon, "voices?legacy=true")
    remains = Remains(daemon)
    body, kind = form({"name": "John", "consent": consent.id}, audio_sample=SAMPLE)
    with leaving(daemon) as one:
        one.send_head("/v1/audio/voices", kind, len(body))
        one.sock.sendall(body[:sent_bytes])
    remains.check()
    assert got(daemon, "voices?legacy=true") == before


def test_a_preview_can_be_sought_in(client: openai.OpenAI, daemon: Daemon, consent: VoiceConsent) -> None:
    voice = client.audio.voices.create(name="x", consent=consent.id, audio_sample=SAMPLE).id
    path = f"/v1/audio/voices/{voice}/preview"
    whole = daemon.get(path)[1]
    assert daemon.request("GET", path, Range="bytes=44-143") == (206, whole[44:144])
    assert daemon.request("HEAD", path) == (200, b"")
    client.audio.voices.delete(voice)


def test_voices_made_at_the_same_time_are_all_there(daemon: Daemon, consent: VoiceConsent) -> None:
    fields = {"name": "John", "consent": consent.id}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(daemon, "voices", fields, audio_sample=SAMPLE), range(16)))
    assert {status for status, _ in answers} == {200}
    made = {answer["id"] for _, answer in answers}
    assert len(made) == 16
    assert made <= set(got(daemon, "voices?legacy=true")["voices"])
    for voice in made:
        assert daemon.request("DELETE", f"/v1/audio/voices/{voice}")[0] == 200


def test_a_models_own_voices_are_listed_and_cannot_be_deleted(daemon: Daemon) -> None:
    voices = got(daemon, "voices")["voices"]
    assert all(voice["id"] and voice["name"] for voice in voices)
    assert {voice.get("model") for voice in voices} >= {"hibari", "kokoro-82m"}
    own = next(voice for voice in voices if voice.get("model") == "kokoro-82m")
    assert got(daemon, f"voices/{own['id']}") == own
    status, answer = daemon.request("DELETE", f"/v1/audio/voices/{own['id']}")
    assert status == 403
    assert "kokoro-82m" in json.loads(answer)["error"]["message"]
    assert daemon.get(f"/v1/audio/voices/{own['id']}/preview")[0] == 404
    assert daemon.get("/v1/audio/voices/nobody")[0] == 404


def test_voices_survive_a_restart_and_a_broken_one_is_reported(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir) as daemon:
        status, consent = post(daemon, "voice_consents", CONSENT, recording=SAMPLE)
        assert status == 200
        fields = {"name": "John", "consent": consent["id"]}
        made = [post(daemon, "voices", fields, audio_sample=SAMPLE)[1]["id"] for _ in range(2)]
    stored = tmp_path / "state" / "voices" / "samples"
    (stored / f"{made[0]}.json").write_bytes(b'{"id"')
    with running(tmp_path, state_dir, "[voices]\nlimit = 2\n") as daemon:
        assert made[1] in got(daemon, "voices?legacy=1")["voices"]
        assert made[0] not in got(daemon, "voices?legacy=1")["voices"]
        assert got(daemon, f"voice_consents/{consent['id']}") == consent
        doctor = daemon.ctl("doctor")
        assert f"{made[0]}.json" in doctor.stdout
        assert post(daemon, "voices", fields, audio_sample=SAMPLE)[0] == 200
        status, answer = post(daemon, "voices", fields, audio_sample=SAMPLE)
        assert (status, answer["error"]["code"]) == (400, "store_full")


def test_without_a_key_stored_voices_are_not_told(tmp_path: Path, state_dir: Path) -> None:
    (tmp_path / "keys").write_text("sk-one\n")
    with running(tmp_path, state_dir, f'[server]\napi_keys_file = "{tmp_path / "keys"}"\n') as daemon:
        key = "Bearer sk-one"
        body = json.dumps({"type": "prompt", "name": "Warm", "prompt": "Warm."}).encode()
        kind = "application/json"
        status, answer = daemon.request("POST", "/v1/audio/voices", body, Content_Type=kind, Authorization=key)
        assert status == 200
        made = json.loads(answer)["id"]
        assert made not in got(daemon, "voices?legacy=true")["voices"]
        known = json.loads(daemon.request("GET", "/v1/audio/voices?legacy=true", Authorization=key)[1])
        assert made in known["voices"]
        refusal = daemon.ctl("voices")
        assert (refusal.returncode, refusal.stdout) == (PermissionDenied.exit_status, "")
        assert "export AUDIOD_API_KEY=KEY" in refusal.stderr
        for path in (f"voices/{made}", "voice_consents"):
            assert daemon.get(f"/v1/audio/{path}")[0] == 401
