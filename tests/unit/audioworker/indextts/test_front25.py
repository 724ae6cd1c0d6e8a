"""Which language a text is in, and what of it is never cut."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioproto.sentences import sentences
from audioworker.indextts.front25 import Front25, language_of


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Hello, it is 3.", "en"),
        ("2026", "en"),
        ("", "en"),
        ("My resume, or résumé, is in Malmö, where nobody ever reads it.", "en"),
        (f"The capital of Colombia, Bogotá, lies high above the sea. {'So do others. ' * 6}", "en"),
        ("你好。", "zh"),
        ("我用 IndexTTS 说话。", "zh"),
        ("这个牌子叫鲜の每日，我每天早上都要喝一杯。", "zh"),
        ("今日は良い天気ですね。", "ja"),
        ("カタカナ", "ja"),
        ("¿Que tal?", "es"),
        ("Mañana vamos a la playa con los niños.", "es"),
        ("El tren sale a las ocho de la mañana.", "es"),
        ("مرحبا بالعالم", "ar"),
        ("مرحبا يا Peter", "ar"),
        ("In Arabic, hello is مرحبا, or so the phrase book of my grandmother says it.", "en"),
    ],
)  # fmt: skip
def test_letters_tell_the_language(written: str, expected: str) -> None:
    assert language_of(written) == expected


@given(st.text(max_size=200))
def test_every_text_has_one(written: str) -> None:
    assert language_of(written) in ("ar", "en", "es", "ja", "zh")


sounds = st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=4)
pronounced = st.builds(
    "<{}|{}>".format,
    st.sampled_from(["行", "going", "read"]),
    st.lists(sounds, min_size=1, max_size=6).map(" . ".join),
)


@given(st.lists(pronounced, min_size=1, max_size=5), st.sampled_from(["。", ". ", " ", "，", "? "]))
def test_a_sentence_does_not_end_within_a_pronunciation(marked: list[str], between: str) -> None:
    front = Front25.__new__(Front25)
    whole = [front.shown(sentence) for sentence in sentences(front.guarded(between.join(marked)))]
    for mark in marked:
        assert any(mark in sentence for sentence in whole)


def test_special_tokens_are_not_anybody_s_to_write() -> None:
    front = Front25.__new__(Front25)
    assert front.shown(front.guarded("a <|startoftranscript|> b <|zh|>")) == "a   b  "
