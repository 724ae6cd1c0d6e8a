"""One daemon for all of these tests, and the plainest of clients: what they look at is the wire itself."""

from __future__ import annotations

import contextlib
import io
import json
import wave
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import sounds
from daemons import AUDIO, Daemon, running

KEY = "sk-a-key-that-nobody-guesses"


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon"), state_dir) as started:
        yield started


@pytest.fixture(scope="package")
def keyed(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """A daemon that wants KEY."""
    directory = tmp_path_factory.mktemp("keyed")
    keys = directory / "keys"
    keys.write_text(f"tests {KEY}\n")
    keys.chmod(0o600)
    with running(directory, state_dir, f'[server]\napi_keys_file = "{keys}"\n') as started:
        yield started


@pytest.fixture(scope="package")
def api(daemon: Daemon) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"{daemon.url}/v1", timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def clip() -> bytes:
    """3.5 s of speech: "concord returned to its place amidst the tents"."""
    return (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()


@pytest.fixture(scope="session")
def silence() -> bytes:
    return sounds.wav(np.zeros(16_000), 16_000)


@pytest.fixture(scope="package")
def transcribed(api: httpx2.Client, clip: bytes) -> Callable[..., httpx2.Response]:
    """The answer to the clip with these fields, asked for once."""
    answers: dict[str, httpx2.Response] = {}

    def transcribe(**fields: str | list[str]) -> httpx2.Response:
        asked = json.dumps(fields, sort_keys=True)
        if asked not in answers:
            answers[asked] = post_audio(api, clip, **fields)
        return answers[asked]

    return transcribe


Fields = Mapping[str, str | list[str]]


def post_form(
    api: httpx2.Client, path: str, file: tuple[str, bytes] | tuple[str, bytes, str], fields: Fields
) -> httpx2.Response:
    """Names of arrays end in `[]`, as they do on the wire."""
    return api.post(path, data={"model": "whisper-1"} | dict(fields), files={"file": file})


def post_audio(api: httpx2.Client, audio: bytes, **fields: str | list[str]) -> httpx2.Response:
    """A transcription of it."""
    return post_form(api, "/audio/transcriptions", ("clip.wav", audio, "audio/wav"), fields)


def speak(api: httpx2.Client, **body: object) -> httpx2.Response:
    return api.post("/audio/speech", json={"model": "tts-1", "voice": "alloy", "input": "Hello there."} | body)


def refusal(answer: httpx2.Response, *statuses: int) -> dict[str, Any]:
    """The error of an answer that must be one, in OpenAI's envelope."""
    assert answer.status_code in statuses or (not statuses and 400 <= answer.status_code < 500), answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def events(body: bytes) -> list[dict[str, Any]]:
    """The server-sent events of a body, each `data:` and JSON and closed by an empty line."""
    text = body.decode()
    assert text.endswith("\n\n")
    found = []
    for block in text[:-2].split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        assert all(line.startswith("data: ") for line in lines), block
        found.append(json.loads("\n".join(line[6:] for line in lines)))
    return found


def has_null(node: object) -> bool:
    if isinstance(node, dict):
        return any(has_null(each) for each in node.values())
    if isinstance(node, list):
        return any(has_null(each) for each in node)
    return node is None


def pcm_of(audio: bytes) -> bytes:
    """s16le mono of a WAV, whose header may give no length."""
    with contextlib.closing(wave.open(io.BytesIO(audio))) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
    return audio[audio.index(b"data") + 8 :]
