"""How a client's events are read, and what is said of those that cannot be."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.api.realtime import events
from audiod.api.realtime.events import Append, Clear, Commit, FromClient, InvalidEvent, SessionUpdate


def read(**event: object) -> FromClient:
    return events.read(json.dumps(event))


def refused(frame: str | bytes) -> tuple[str, str, str | None]:
    with pytest.raises(InvalidEvent) as raised:
        events.read(frame)
    return raised.value.code, raised.value.param, raised.value.event_id


def test_events_are_read() -> None:
    audio = base64.b64encode(b"\x01\x02\x03\x04").decode()
    assert read(type="input_audio_buffer.append", audio=audio) == Append(audio=b"\x01\x02\x03\x04")
    assert read(type="input_audio_buffer.commit", event_id="mine") == Commit(event_id="mine")
    assert read(type="input_audio_buffer.clear", unheard="of") == Clear()
    assert read(type="session.update", session={"a": None}) == SessionUpdate(session={"a": None})


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ({"type": "session.updatd"}, "invalid_value", "type"),
        ({"type": "response.create"}, "unsupported_event", "type"),
        ({"type": "transcription_session.update"}, "invalid_value", "type"),
        ({}, "missing_required_parameter", "type"),
        ({"type": 5}, "invalid_type", "type"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.append", "audio": 5}, "invalid_value", "audio"),
        ({"type": "input_audio_buffer.append", "audio": "not base64"}, "invalid_value", "audio"),
        ({"type": "session.update"}, "missing_required_parameter", "session"),
        ({"type": "session.update", "session": []}, "invalid_value", "session"),
    ],
)
def test_what_is_wrong_is_named_with_the_client_s_event(event: dict[str, object], code: str, param: str) -> None:
    assert refused(json.dumps(event | {"event_id": "evt_7"})) == (code, param, "evt_7")
    assert refused(json.dumps(event)) == (code, param, None)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        ('{"type":"session.update","session":' + '{"a":' * 100_000, "invalid_json"),
        ('{"type":"nothing","zz":' + "[" * 100_000, "invalid_event"),
        ('{"type":5,"zz":', "invalid_event"),
        ("[]", "invalid_event"),
        ("null", "invalid_event"),
    ],
)
def test_what_is_no_event_at_all(frame: str | bytes, code: str) -> None:
    assert refused(frame) == (code, "", None)


def test_too_much_audio_in_one_event() -> None:
    audio = base64.b64encode(bytes(events.APPEND_BYTES + 1)).decode()
    frame = json.dumps({"type": "input_audio_buffer.append", "audio": audio, "event_id": "big"})
    assert refused(frame) == ("audio_too_large", "audio", "big")


@given(st.binary() | st.text())
def test_nothing_else_is_raised(frame: str | bytes) -> None:
    with pytest.raises(InvalidEvent):
        events.read(frame)
