"""Emotions in one line: names with strengths are told from every other sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioproto import emotions
from audioproto.errors import BadRequest
from audioproto.types import EMOTIONS

STRENGTHS = st.integers(0, 100).map(lambda percent: percent / 100)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("happy", {"happy": 1.0}),
        (" Happy 0.6 , CALM .2", {"happy": 0.6, "calm": 0.2}),
        ("sad: 0.5, angry=1", {"sad": 0.5, "angry": 1.0}),
        ("calm 0", {"calm": 0.0}),
        ("happy, happy", None),
        ("happy and calm", None),
        ("happy 0.6 calm 0.2", None),
        ("happy -0.5", None),
        ("happy 50%", None),
        ("Speak happily.", None),
        ("", None),
        (",", None),
        ("happy,", None),
    ],
)
def test_names_are_told_from_descriptions(text: str, found: dict[str, float] | None) -> None:
    assert emotions.read(text) == found


@pytest.mark.parametrize("text", ["happy 1.01", "calm 0.2, sad 70"])
def test_too_much_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="from 0 to 1"):
        emotions.read(text)


@given(st.dictionaries(st.sampled_from(EMOTIONS), STRENGTHS, min_size=1))
def test_whatever_is_written_is_read(strengths: dict[str, float]) -> None:
    assert emotions.read(", ".join(f"{name} {strength}" for name, strength in strengths.items())) == strengths


@given(st.text())
def test_any_text_is_a_description_or_an_emotion(text: str) -> None:
    try:
        found = emotions.read(text)
    except BadRequest:
        return
    assert found is None or (set(found) <= set(EMOTIONS) and all(0 <= strength <= 1 for strength in found.values()))
