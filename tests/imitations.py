"""The model `cloning` of tests/made as clients see it: what it was asked for, and recordings to ask it with."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

import sounds
from daemons import Daemon

MODEL = "cloning"


def tone(hz: float, seconds: float = 2.0, rate: int = 24_000) -> bytes:
    """A WAV in which the model hears `hz`."""
    return sounds.wav(sounds.tone(seconds, rate, hz), rate)


def in_base64(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


def data_url(audio: bytes, kind: str = "audio/wav") -> str:
    return f"data:{kind};base64,{in_base64(audio)}"


def told(pcm: bytes) -> list[dict[str, Any]]:
    """What the model says of each part of a text; parts come as they are spoken."""
    said = np.frombuffer(pcm, "<i2").astype(np.uint8).tobytes().decode()
    return [json.loads(line) for line in said.splitlines()]


def speak(daemon: Daemon, text: str = "Hello.", /, **fields: object) -> tuple[int, bytes]:
    body = {"model": MODEL, "input": text, "response_format": "pcm"} | fields
    return daemon.request("POST", "/v1/audio/speech", json.dumps(body).encode(), Content_Type="application/json")


def spoken(daemon: Daemon, text: str = "Hello.", /, **fields: object) -> dict[str, Any]:
    """What the model was asked for with these fields, in the voice of a recording where they name none."""
    status, pcm = speak(daemon, text, **_with_voice(fields))
    assert status == 200, pcm
    return told(pcm)[0]


def refused(daemon: Daemon, text: str = "Hello.", /, **fields: object) -> tuple[int, str, str | None, str]:
    """Status, code, field and message of the refusal."""
    status, body = speak(daemon, text, **_with_voice(fields))
    assert status >= 400, told(body)
    error = json.loads(body)["error"]
    return status, error["code"], error["param"], error["message"]


def _with_voice(fields: dict[str, object]) -> dict[str, object]:
    return {"voice": "alloy" if "ref_audio" in fields else data_url(tone(440))} | fields
