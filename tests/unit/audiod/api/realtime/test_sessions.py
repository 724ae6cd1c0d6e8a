"""What updates make of a session: only what they name changes, and what is wrong is named and changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.api.realtime.sessions import Session, Transcription, updated
from audiod.media.live import LiveFormat
from audiod.media.turns import TurnSettings
from audioproto.errors import BadRequest, ModelNotFound

FIRST = Session("sess_1", 1_800_000_000)


def check(how: Transcription, logprobs: bool) -> None:
    if how.model != "known":
        raise ModelNotFound(f"there is no model {how.model!r}", param="model")
    if logprobs and how.language == "de":
        raise BadRequest("no log probabilities", param="session.include")


def update(session: Session, **keys: object) -> Session:
    return updated(session, keys, "known", check)


def of_input(session: Session, **keys: object) -> Session:
    return update(session, audio={"input": keys})


def shown(session: Session) -> dict[str, Any]:
    sound: dict[str, Any] = msgspec.to_builtins(session)["audio"]["input"]
    return sound


def test_what_is_shown_at_first() -> None:
    assert msgspec.to_builtins(update(FIRST)) == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "type": "transcription",
        "expires_at": 1_800_000_000,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "known"},
                "noise_reduction": None,
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            }
        },
    }


def test_only_the_keys_present_change() -> None:
    one = of_input(FIRST, turn_detection={"silence_duration_ms": 200}, transcription={"language": "en"})
    two = of_input(one, turn_detection={"threshold": 0.7}, transcription={"model": "known", "prompt": "Fellow"})
    assert two.turns == TurnSettings(0.7, 300, 200)
    assert shown(two)["transcription"] == {"model": "known", "language": "en", "prompt": "Fellow"}
    assert update(two, type="transcription") == two


@pytest.mark.parametrize("key", ["turn_detection", "transcription", "noise_reduction"])
def test_null_turns_off(key: str) -> None:
    on = of_input(FIRST, noise_reduction={"type": "near_field"}, transcription={"model": "known"})
    assert shown(of_input(on, **{key: None})) == shown(on) | {key: None}


def test_null_for_other_keys_is_their_default() -> None:
    one = of_input(FIRST, transcription={"model": "known", "language": "en"}, format={"type": "audio/pcmu"})
    two = of_input(one, transcription={"language": None}, format=None)
    assert shown(two)["transcription"] == {"model": "known"}
    assert two.format is LiveFormat.PCM


def test_what_was_off_comes_back_with_defaults() -> None:
    off = of_input(FIRST, turn_detection=None, transcription=None)
    on = of_input(off, turn_detection={"type": "server_vad"}, transcription={"language": "de"})
    assert on.turns == TurnSettings()
    assert shown(on)["transcription"] == {"model": "known", "language": "de"}


@pytest.mark.parametrize(("delay", "intervals"), [(None, 0), ("minimal", 1), ("low", 2), ("xhigh", 5)])
def test_turns_are_live_with_a_delay_and_heard_the_rarer_the_longer_it_is(delay: str | None, intervals: int) -> None:
    how = of_input(FIRST, transcription={"delay": delay}).audio.input.transcription
    assert how is not None
    assert how.hearing_intervals == intervals


def test_what_is_of_live_turns_only_and_what_they_do_not_have() -> None:
    live = of_input(FIRST, transcription={"delay": "low", "partials": True})
    assert shown(live)["transcription"] == {"model": "known", "delay": "low", "partials": True}
    with pytest.raises(BadRequest) as refused:
        of_input(live, transcription={"delay": None})
    assert refused.value.param == "session.audio.input.transcription.partials"
    with pytest.raises(BadRequest) as refused:
        update(live, include=["item.input_audio_transcription.logprobs"])
    assert refused.value.param == "session.include"
    assert shown(of_input(live, transcription={"delay": None, "partials": False}))


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("low", 2000), ("medium", 1000), ("auto", 1000), ("high", 500)])
def test_semantic_detection_is_silence_by_eagerness(eagerness: str, silence_ms: int) -> None:
    session = of_input(FIRST, turn_detection={"type": "semantic_vad", "eagerness": eagerness})
    assert shown(session)["turn_detection"] == {"type": "semantic_vad", "eagerness": eagerness}
    assert session.turns == TurnSettings(silence_duration_ms=silence_ms)


@pytest.mark.parametrize("name", ["audio/pcmu", "audio/pcma"])
def test_a_format_of_another_type_leaves_nothing_of_the_old_one(name: str) -> None:
    assert shown(of_input(FIRST, format={"type": name}))["format"] == {"type": name}


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"type": "realtime"}, "session.type"),
        ({"type": 7}, "session.type"),
        ({"audio": 5}, "session.audio"),
        ({"audio": {"input": {"format": {"type": "audio/mp3"}}}}, "session.audio.input.format.type"),
        ({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}}, "session.audio.input.format.rate"),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "session.audio.input.turn_detection.threshold",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": -1}}}},
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        ({"audio": {"input": {"turn_detection": "server_vad"}}}, "session.audio.input.turn_detection"),
        ({"audio": {"input": {"noise_reduction": {"strength": 1}}}}, "session.audio.input.noise_reduction.type"),
        ({"audio": {"input": {"transcription": {"language": 3}}}}, "session.audio.input.transcription.language"),
        ({"include": ["everything"]}, "session.include[0]"),
        (
            {
                "include": ["item.input_audio_transcription.logprobs"],
                "audio": {"input": {"transcription": {"language": "de"}}},
            },
            "session.include",
        ),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        update(FIRST, **keys)
    assert refused.value.param == param


def test_a_model_that_there_is_not_is_refused() -> None:
    with pytest.raises(ModelNotFound):
        of_input(FIRST, transcription={"model": "unheard-of"})


def test_what_is_ours_to_say_is_not_the_client_s() -> None:
    session = update(FIRST, id="mine", object="x", expires_at=0, include=None, instructions="none", tools=[])
    assert session == update(FIRST)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["type", "audio", "input", "format", "turn_detection", "transcription", "model", "threshold"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "audio", "include", "id"]), json))
def test_any_update_is_taken_or_refused_and_what_is_shown_is_valid(keys: dict[str, object]) -> None:
    try:
        session = update(FIRST, **keys)
    except (BadRequest, ModelNotFound):
        return
    assert msgspec.convert(msgspec.to_builtins(session), Session) == session
    assert update(session, **msgspec.to_builtins(session)) == session, "what is shown may be sent back"
