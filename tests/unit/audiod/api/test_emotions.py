"""What an emotion object and what instructions ask for, and when they are refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.api import emotions
from audiod.api.emotions import EmotionFields
from audioproto.errors import BadRequest
from audioproto.types import EMOTIONS
from audioproto.worker import Emotion

EMOTIONS_BEGIN = "".join(name[0] + name[0].upper() for name in EMOTIONS)
SHARES = st.floats(0, 1)
VECTORS = st.dictionaries(st.sampled_from(EMOTIONS), SHARES, min_size=1) | st.lists(SHARES, min_size=8, max_size=8)
OBJECTS = st.builds(
    EmotionFields,
    mode=st.none() | st.sampled_from(emotions.EmotionMode),
    audio=st.none() | st.just("UklGRg=="),
    vector=st.none() | VECTORS,
    text=st.none() | st.text(max_size=20),
    alpha=st.none() | SHARES,
)


@given(OBJECTS)
def test_an_emotion_is_at_most_one_thing(fields: EmotionFields) -> None:
    given_ = [bool(fields.audio), bool(fields.vector), bool((fields.text or "").strip())]
    mode = fields.mode or "auto"
    named = [name for name, is_given in zip(("audio", "vector", "text"), given_, strict=True) if is_given]
    if len(named) > 1 or (mode in ("audio", "vector") and not named) or (mode != "auto" and named not in ([], [mode])):
        with pytest.raises(BadRequest) as refused:
            emotions.read(fields)
        assert refused.value.param == "emotion"
        return
    emotion = emotions.read(fields)
    if emotion is None:
        assert (mode, sum(given_)) == ("auto", 0)
        return
    assert sum(given_) == 1 or (mode, sum(given_)) == ("text", 0)
    assert len(emotion.vector) in (0, len(EMOTIONS))
    assert emotion.alpha == (1.0 if fields.alpha is None else fields.alpha)


@given(st.dictionaries(st.sampled_from(EMOTIONS), SHARES, min_size=1))
def test_a_vector_by_name_is_the_same_in_its_order(vector: dict[str, float]) -> None:
    in_order = [vector.get(name, 0.0) for name in EMOTIONS]
    by_name, listed = EmotionFields(vector=dict(vector)), EmotionFields(vector=list(in_order))
    assert emotions.read(by_name) == emotions.read(listed) == Emotion(vector=in_order)


@given(OBJECTS)
def test_an_object_in_instructions_is_the_object(fields: EmotionFields) -> None:
    assert emotions.read_instructions(msgspec.json.encode(fields).decode()) == fields


@given(st.text())
def test_any_instructions_are_taken_or_named(text: str) -> None:
    param, read = "instructions", None
    try:
        asked = emotions.read_instructions(text)
        read = None if asked is None else emotions.read(asked, "instructions")
    except BadRequest as refusal:
        param = refusal.param
    assert param == "instructions"
    assert read is not None or not text.strip() or text.strip()[0] in "{" + EMOTIONS_BEGIN


def test_broken_json_is_a_description() -> None:
    assert emotions.read_instructions("{happy}") == EmotionFields(text="{happy}")
