"""Programs that people use, by requests as they send them: each must find in the answers what it reads there.

clients/*.http hold the requests, byte for byte but for the address, the key, lengths and the recording, with where they
come from. A chunked one is cut into pieces of 8 KiB.
"""

from __future__ import annotations

import socket
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemons import Daemon

from .conftest import KEY, events

HERE = Path(__file__).parent / "clients"


@dataclass
class Answer:
    status: int
    content_type: str
    body: bytes

    def json(self) -> Any:
        assert self.content_type.startswith("application/json"), self.content_type
        return msgspec.json.decode(self.body)

    def text(self) -> str:
        """What all of them read of a transcription."""
        assert self.status == 200, self.body
        text: str = self.json()["text"]
        assert "returned to its place" in text
        return text

    def audio(self, content_type: str, starts: tuple[bytes, ...]) -> None:
        assert self.status == 200, self.body
        assert self.content_type == content_type
        assert self.body.startswith(starts)
        assert len(self.body) > 2000


Replay = Callable[..., dict[str, Answer]]
MP3 = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xe3")


def requests_of(client: str, clip: bytes, host: str, key: str) -> dict[str, bytes]:
    """The requests in the client's file by what they are called."""
    found = {}
    for block in (HERE / f"{client}.http").read_text().split("\n### ")[1:]:
        name, _, text = block.partition("\n")
        head, _, body = text.partition("\n\n")
        lines = [clip if line == "< clip.wav" else line.encode() for line in body.splitlines()]
        content = b"\r\n".join(lines) + (b"\r\n" if len(lines) > 1 else b"")
        head = head.replace("{host}", host).replace("{key}", key).replace("{length}", str(len(content)))
        if "transfer-encoding: chunked" in head:
            pieces = [content[at : at + 8192] for at in range(0, len(content), 8192)]
            content = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        found[name] = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + content
    return found


@pytest.fixture
def replay(daemon: Daemon, clip: bytes) -> Replay:
    def play(client: str, on: Daemon = daemon, key: str = "sk-none") -> dict[str, Answer]:
        address = urllib.parse.urlsplit(on.url)
        answers = {}
        for name, sent in requests_of(client, clip, address.netloc, key).items():
            with socket.create_connection((address.hostname, address.port), timeout=120) as connection:
                connection.sendall(sent)
                with HTTPResponse(connection, method=sent.split()[0].decode()) as answer:
                    answer.begin()
                    answers[name] = Answer(answer.status, answer.headers["Content-Type"], answer.read())
        return answers

    return play


def test_open_webui(replay: Replay, keyed: Daemon) -> None:
    for on, key in ((None, "sk-none"), (keyed, KEY)):
        answers = replay("open-webui", key=key) if on is None else replay("open-webui", on=on, key=key)
        assert {"tts-1"} <= {model["id"] for model in answers["models"].json()["models"]}
        assert all(voice["id"] and voice["name"] for voice in answers["voices"].json()["voices"])
        answers["speech"].audio("audio/mpeg", MP3)
        answers["transcription"].text()
        refused = answers["refused"]
        assert refused.status == 404
        assert "no-such-model" in refused.json()["error"].get("message")  # it says `.get`: a bare string breaks it


def test_librechat(replay: Replay) -> None:
    answers = replay("librechat")
    assert answers["transcription"].text().strip()
    answers["speech"].audio("audio/mpeg", MP3)


def test_sillytavern(replay: Replay) -> None:
    answers = replay("sillytavern")
    answers["speech"].audio("audio/mpeg", MP3)
    answers["speech by TTS-WebUI's provider"].audio("audio/wav", (b"RIFF",))


def test_anythingllm(replay: Replay) -> None:
    answers = replay("anythingllm")
    answers["transcription"].text()
    answers["speech"].audio("audio/mpeg", MP3)
    assert all(voice["id"] for voice in answers["voices"].json()["voices"])


def test_dify(replay: Replay) -> None:
    answers = replay("dify")
    answers["transcription"].text()
    answers["speech"].audio("audio/mpeg", MP3)


def test_n8n(replay: Replay) -> None:
    answers = replay("n8n")
    assert answers["credential test"].status == 200
    assert answers["credential test"].json()["data"]
    answers["transcription"].text()
    answers["speech"].audio("audio/opus", (b"OggS",))


def test_home_assistant(replay: Replay) -> None:
    answers = replay("home-assistant")
    assert answers["transcription"].text().strip()
    answers["speech"].audio("audio/opus", (b"OggS",))


def test_home_assistant_addons(replay: Replay) -> None:
    answers = replay("home-assistant-addons")
    answers["speech"].audio("audio/mpeg", MP3)
    assert answers["model"].status == 200
    answers["transcription"].text()


def test_wyoming_openai(replay: Replay) -> None:
    answers = replay("wyoming_openai")
    # It must not take us for one of the servers whose own ways it knows.
    assert answers["probe for Speaches"].body.strip() != b"OK"
    for probe in ("probe for Kokoro-FastAPI", "probe for LocalAI", "voices as another server lists them"):
        assert answers[probe].status == 404
    assert all(voice["name"] for voice in answers["voices of a model"].json()["voices"])
    *deltas, done = events(answers["streamed transcription"].body)
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert "returned to its place" in done["text"]
    speech = answers["speech"]
    speech.audio("audio/wav", (b"RIFF",))
    assert speech.body[8:16] + speech.body[36:40] == b"WAVEfmt data"  # the header is all in the first 44 bytes
