"""A tiny IndexTTS2 and a tiny IndexTTS-2.5 in a real daemon, beside a tiny Qwen3-ASR, as OpenAI's SDK and audioctl meet
them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from clients import samples
from daemons import AUDIO, Daemon, running, transcribe

MODEL, LATER, ASR = "tiny-tts", "tiny-tts-2.5", "tiny-asr"
KENNEDY = AUDIO / "jfk.wav"

SPEAKER = """
id = "{model}"
engine = "{engine}"
runtime = "indextts"
task = "speak"
languages = {languages}
scripts = ["latin", "han"]
clones = true
emotions = true
emotion_words = {words}
input_characters = 100000
path = "{path}"
parked_bytes = "450MiB"
ready_bytes = "500MiB"
[options]
beams = 1
diffusion_steps = 3
"""

HEARER = """
id = "{model}"
engine = "qwen_asr"
runtime = "qwen-asr"
task = "transcribe"
exact_words = false
path = "{path}"
ready_bytes = "500MiB"
[options]
vad = false
"""


@pytest.fixture(scope="module")
def daemon(
    tmp_path_factory: pytest.TempPathFactory,
    state_dir: Path,
    tiny_indextts: Path,
    tiny_indextts25: Path,
    tiny_qwen: Path,
) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("daemon")
    (directory / "models.d").mkdir()
    for model, engine, languages, words, path in (
        (MODEL, "indextts2", '["en", "zh"]', "true", tiny_indextts),
        (LATER, "indextts25", '["en", "zh", "es", "ar"]', "false", tiny_indextts25),
    ):
        entry = SPEAKER.format(model=model, engine=engine, languages=languages, words=words, path=path / "tiny")
        (directory / f"models.d/{model}.toml").write_text(entry)
    (directory / "models.d/asr.toml").write_text(HEARER.format(model=ASR, path=tiny_qwen / "asr"))
    with running(directory, state_dir, '[residency]\nbudget = "4GiB"\npark_budget = "5GiB"\n') as started:
        yield started


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def kennedy(daemon: Daemon) -> str:
    """The id of Kennedy's voice."""
    return stored(daemon, "Kennedy")


def stored(daemon: Daemon, name: str) -> str:
    """The id of a voice made by audioctl."""
    recording = str(KENNEDY)
    added = daemon.ctl("voices", "add", name, recording, "--consent", recording, "--language", "en-US", "--json")
    assert added.returncode == 0, added.stderr
    return str(json.loads(added.stdout)["id"])


def pcm(client: openai.OpenAI, text: str = "你好世界。", voice: Any = "Kennedy", **more: Any) -> np.ndarray[Any, Any]:
    """What is said, at 24 kHz; as seeded as can be unless told otherwise."""
    body = {"seed": 1} | more.pop("extra_body", {})
    model = more.pop("model", MODEL)
    with client.audio.speech.with_streaming_response.create(
        model=model, voice=voice, input=text, response_format="pcm", extra_body=body, **more
    ) as answer:
        return np.frombuffer(answer.read(), "<i2").astype(np.float32) / 32768


def phases(daemon: Daemon) -> dict[str, float]:
    """How often each phase has run."""
    found = samples(daemon)
    prefix = f'audiod_phase_seconds_count{{model="{MODEL}",phase="'
    return {
        key.removeprefix(prefix).removesuffix('"}'): value for key, value in found.items() if key.startswith(prefix)
    }


def in_base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def test_a_stored_voice_is_encoded_once_whoever_speaks_with_it(
    daemon: Daemon, client: openai.OpenAI, kennedy: str
) -> None:
    said = pcm(client, voice=kennedy)
    assert said.size == pytest.approx(0.5 * 24_000, abs=600)
    assert 0.03 < said.std() < 0.3
    before = phases(daemon)
    assert before["reference"] == 1
    assert daemon.ctl("unload", MODEL).returncode == 0
    assert np.array_equal(pcm(client), said), "by its name, in another process"
    after = phases(daemon)
    assert after["reference"] == before["reference"]
    assert after["vocoder"] == before["vocoder"] + 1


@pytest.mark.parametrize(
    ("emotion", "phase"),
    [
        ({"mode": "auto"}, None),
        ({"mode": "vector", "vector": {"angry": 0.8}}, None),
        ({"mode": "text", "text": "非常生气"}, "emotion"),
        ({"mode": "text"}, "emotion"),
        ({"mode": "audio", "audio": in_base64(AUDIO / "librispeech-6930-75918-0000.wav"), "alpha": 0.7}, "reference"),
    ],
)
def test_every_way_to_ask_for_an_emotion_by_the_sdk(
    daemon: Daemon, client: openai.OpenAI, kennedy: str, emotion: dict[str, Any], phase: str | None
) -> None:
    plain = pcm(client)
    before = phases(daemon)
    moved = pcm(client, extra_body={"emotion": emotion})
    after = phases(daemon)
    ran = {name for name in after if after[name] > before.get(name, 0)}
    assert ran == {"autoregression", "s2mel", "vocoder"} | ({phase} if phase else set())
    assert np.array_equal(moved, plain) == (emotion == {"mode": "auto"})


def test_instructions_are_an_emotion_too(client: openai.OpenAI, kennedy: str) -> None:
    by_vector = pcm(client, extra_body={"emotion": {"vector": {"angry": 0.8}}})
    assert np.array_equal(pcm(client, instructions="angry 0.8"), by_vector)
    assert not np.array_equal(pcm(client, instructions="like somebody who is very angry"), pcm(client))


def test_a_recording_in_the_request_is_a_voice(client: openai.OpenAI) -> None:
    woman = f"data:audio/wav;base64,{in_base64(AUDIO / 'librispeech-6930-75918-0001.wav')}"
    said = pcm(client, voice=woman)
    assert said.size == pytest.approx(0.5 * 24_000, abs=600)
    assert np.array_equal(pcm(client, voice=woman), said)


def test_five_thousand_characters_are_heard_long_before_they_are_spoken(
    daemon: Daemon, client: openai.OpenAI, kennedy: str
) -> None:
    text = "今天我们来说一说这个地方的人，" * 4 + "你们也来听。"
    before = phases(daemon)
    with client.audio.speech.with_streaming_response.create(
        model=MODEL, voice=kennedy, input=text * 76, response_format="pcm"
    ) as answer:
        heard = b"".join(chunk for chunk, _ in zip(answer.iter_bytes(4000), range(3), strict=False))
        now = phases(daemon)
    assert len(text * 76) > 5000
    assert len(heard) == 12_000
    assert now["vocoder"] - before["vocoder"] <= 2, "while the second part is at work"


def test_each_comes_back_after_the_other(daemon: Daemon, client: openai.OpenAI, kennedy: str) -> None:
    """Speech and text in turns, each parked while the other is at work."""
    sentence = (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()
    plain = pcm(client)
    for _ in range(2):
        assert daemon.ctl("park", MODEL).returncode == 0
        status, heard = transcribe(daemon, sentence, model=ASR)
        assert (status, json.loads(heard)["text"]) == (200, "hello brave new world")
        assert daemon.ctl("park", ASR).returncode == 0
        assert np.array_equal(pcm(client), plain)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"text": "ไม่มี"}, 400, "unspeakable_text", "input"),
        ({"voice": "nobody"}, 400, "voice_not_found", "voice"),
        ({"voice": "data:audio/wav;base64,UklGRg=="}, 400, "invalid_audio", "voice"),
        ({"extra_body": {"emotion": {"vector": {"bored": 1}}}}, 400, "invalid_request", "emotion"),
        ({"extra_body": {"emotion": {"vector": {"happy": 2}}}}, 400, "invalid_request", "emotion"),
    ],
)
def test_bad_input_is_told_by_the_field(
    client: openai.OpenAI, kennedy: str, fields: dict[str, Any], status: int, code: str, param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        pcm(client, **fields)
    assert (refused.value.status_code, refused.value.code) == (status, code)
    assert str(refused.value.param).startswith(param)


def test_indextts_2_5_speaks_more_languages_with_the_same_voice_and_at_its_own_speed(
    daemon: Daemon, client: openai.OpenAI, kennedy: str
) -> None:
    plain = pcm(client, "2026", model=LATER)
    assert plain.size == pytest.approx(11_264 / 22_050 * 24_000, abs=600)
    assert not np.array_equal(pcm(client, "2026", model=LATER, extra_body={"language": "Spanish"}), plain)
    fast = pcm(client, "2026", model=LATER, speed=1.25)
    assert fast.size == pytest.approx(plain.size / 1.25, abs=600)
    angry = {"emotion": {"mode": "vector", "vector": {"angry": 0.8}}}
    assert pcm(client, "¿Qué tal?", model=LATER, extra_body=angry).size == pytest.approx(plain.size, abs=600)
    file = daemon.directory / "said.wav"
    said = daemon.ctl("say", "2026", "--model", LATER, "--voice", kennedy, "--language", "ar", "-o", str(file))
    assert said.returncode == 0, said.stderr
    assert file.stat().st_size > plain.size


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"extra_body": {"language": "fr"}}, "language"),
        ({"extra_body": {"emotion": {"mode": "text", "text": "angry"}}}, "emotion"),
        ({"extra_body": {"emotion": {"mode": "text"}}}, "emotion"),
        ({"instructions": "like somebody who is very angry"}, "instructions"),
    ],
)
def test_what_indextts_2_5_cannot_is_refused_with_what_can(
    client: openai.OpenAI, kennedy: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        pcm(client, model=LATER, **fields)
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert ("Spanish" if param == "language" else MODEL) in refused.value.message


def test_what_was_made_of_a_voice_goes_with_it(daemon: Daemon, client: openai.OpenAI) -> None:
    voice, made = stored(daemon, "Somebody"), daemon.directory / "state/voices/made"
    pcm(client, voice=voice)
    assert list(made.rglob(f"{voice}.*"))
    assert daemon.ctl("voices", "remove", voice).returncode == 0
    assert not list(made.rglob(f"{voice}.*"))


def test_nothing_is_kept_of_a_recording_in_the_request(daemon: Daemon, client: openai.OpenAI) -> None:
    """The engine keeps what it makes of stored voices, in files of its own."""

    def kept() -> set[Path]:
        return {file for file in (daemon.directory / "state/voices").rglob("*") if file.is_file()}

    before = kept()
    pcm(client, voice=f"data:audio/wav;base64,{in_base64(AUDIO / 'librispeech-6930-75918-0001.wav')}")
    assert kept() == before
