"""Voices of recordings and emotions, as OpenAI's Python SDK asks for them, and as the manual prints it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from daemons import TOP, Daemon, running
from imitations import MODEL, data_url, in_base64, told, tone

SAD = {"sad": 0.7, "calm": 0.3}
SAD_VECTOR = [0.0, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0, 0.3]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path, engines_made: Path) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("cloning"), state_dir, made=engines_made) as started:
        yield started


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def anna(client: openai.OpenAI) -> str:
    """A stored voice's id."""
    consent = client.audio.voice_consents.create(name="Anna", language="en-US", recording=("c.wav", tone(300)))
    return client.audio.voices.create(name="Anna", consent=consent.id, audio_sample=("a.wav", tone(750))).id


def spoken(client: openai.OpenAI, voice: Any, **more: Any) -> dict[str, Any]:
    answer = client.audio.speech.create(model=MODEL, input="Hello.", voice=voice, response_format="pcm", **more)
    return told(answer.read())[0]


def test_a_stored_voice_by_its_id_and_its_name(client: openai.OpenAI, anna: str) -> None:
    for voice in ({"id": anna}, anna, "Anna"):
        asked = spoken(client, voice)
        assert (asked["reference"]["voice"], asked["reference"]["heard"]["hz"]) == (anna, 750)


def test_a_recording_in_the_request(client: openai.OpenAI) -> None:
    for voice, extra in (
        ("alloy", {"ref_audio": in_base64(tone(440))}),
        (data_url(tone(440)), {}),
        ("alloy", {"voice": {"audio": in_base64(tone(440))}}),
    ):
        asked = spoken(client, voice, extra_body=extra)
        assert (asked["reference"]["voice"], asked["reference"]["heard"]["hz"]) == ("", 440)


@pytest.mark.parametrize(
    ("emotion", "got"),
    [
        ({"mode": "auto"}, None),
        ({"mode": "auto", "vector": SAD}, {"vector": SAD_VECTOR}),
        ({"mode": "vector", "vector": SAD}, {"vector": SAD_VECTOR}),
        ({"mode": "text", "text": "tired"}, {"text": "tired"}),
        ({"mode": "text"}, {}),
        ({"mode": "audio", "audio": in_base64(tone(880))}, {"heard": {"hz": 880, "seconds": 2.0}}),
    ],
    ids=["auto", "auto by vector", "vector", "text", "text of the input", "audio"],
)
def test_every_mode_of_emotion(
    client: openai.OpenAI, anna: str, emotion: dict[str, Any], got: dict[str, Any] | None
) -> None:
    asked = spoken(client, anna, extra_body={"emotion": emotion})["emotion"]
    nothing: dict[str, Any] = {"heard": None, "vector": [], "text": "", "alpha": 1.0}
    assert asked == (None if got is None else nothing | got)


def test_instructions_alone(client: openai.OpenAI, anna: str) -> None:
    assert spoken(client, anna, instructions="sad 0.7, calm 0.3")["emotion"]["vector"] == SAD_VECTOR
    assert spoken(client, anna, instructions="Like a pirate.")["emotion"]["text"] == "Like a pirate."
    assert spoken(client, anna, instructions=json.dumps({"text": "tired"}))["emotion"]["text"] == "tired"
    with pytest.raises(openai.BadRequestError) as refused:
        spoken(client, anna, instructions="sad 7")
    assert refused.value.param == "instructions"


def test_what_is_wrong_is_the_sdks_own_error(client: openai.OpenAI, anna: str) -> None:
    for extra, param, code in (
        ({"emotion": {"vector": {"glad": 1}}}, "emotion", "invalid_request"),
        ({"seed": -5}, "seed", "invalid_request"),
        ({"ref_audio": "!"}, "ref_audio", "invalid_audio"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            spoken(client, anna, extra_body=extra)
        assert (refused.value.param, refused.value.code) == (param, code)


def test_events_are_those_that_the_sdk_knows(client: openai.OpenAI, anna: str) -> None:
    """Unless it asks for more, which it hands through as they are."""
    for extra, kinds in (({}, {"speech.audio.delta", "speech.audio.done"}), ({"progress": True}, {"speech.progress"})):
        with client.audio.speech.with_streaming_response.create(
            model=MODEL, input="Hello.", voice=anna, stream_format="sse", response_format="pcm", extra_body=extra
        ) as answer:
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert kinds <= {json.loads(line)["type"] for line in lines}
        assert bool(extra) or kinds == {json.loads(line)["type"] for line in lines}


def test_the_manuals_example_works_as_printed(daemon: Daemon, anna: str, tmp_path: Path) -> None:
    section = (TOP / "docs" / "http-api.md").read_text().partition("## Cloned voices")[2]
    printed = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert printed
    code = printed[1].replace("http://127.0.0.1:8000", daemon.url).replace("indextts-2", MODEL)
    (tmp_path / "anna.wav").write_bytes(tone(440))
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert all((tmp_path / name).stat().st_size > 0 for name in ("morning.mp3", "rain.mp3"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_manual_stores_a_voice_as_printed(daemon: Daemon, tmp_path: Path) -> None:
    section = (TOP / "docs" / "http-api.md").read_text().partition("## Voices")[2]
    printed = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert printed
    for name in ("consent.wav", "anna.wav"):
        (tmp_path / name).write_bytes(tone(440))
    made = {"cons_...": "", "voice_...": ""}
    for command in printed[1].replace("\\\n", " ").replace("http://127.0.0.1:8000", daemon.url).splitlines():
        for placeholder, identity in made.items():
            command = command.replace(placeholder, identity)
        ran = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        if found := re.search(r'"id":"(cons|voice)_[0-9a-f]+"', ran.stdout):
            made[f"{found[1]}_..."] = found[0].split('"')[3]
    assert (tmp_path / "anna.wav").read_bytes()[:4] == b"RIFF"
    assert all(made.values())
