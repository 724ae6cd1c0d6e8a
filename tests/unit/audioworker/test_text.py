"""What becomes of written text before a voice gets it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioproto.sentences import LONGEST_SENTENCE, sentences
from audioworker import text


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello", "Hello."),
        ("Hello!", "Hello!"),
        ("你好", "你好。"),
        ("こんにちは", "こんにちは。"),
        ("电话13800138000", "电话13800138000。"),
        ("气温-5℃", "气温-5℃。"),
        ("# Title\n\n* one\n* two", "Title.\none.\ntwo."),
        ("**Bold** and _slanted_ and `code`", "Bold and slanted and code."),
        ("[a link](https://example.com/x_(y))", "a link."),
        ("2 * 3 * 4", "2 * 3 * 4."),
        ("snake_case_name", "snake_case_name."),
        ("<p>One</p><p>Two &amp; three</p>", "One.\nTwo & three."),
        ("a < b and b > c", "a < b and b > c."),
        ("Nice 👍🏽 work 🎉", "Nice work."),
        ("go → there", "go there."),
        ("ＡＢＣ１２３", "ABC123."),
        ("zero\u200bwidth", "zerowidth."),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a, b.\n1, 2."),
        ("A" * 600, "A" * 50 + "."),
        ("Wow!!!!!!!!", "Wow!!!"),
        ("1,000,000", "1,000,000."),
        ("1,2,3", "1, 2, 3."),
        ("1234567890123", "1 2 3 4 5 6 7 8 9 0 1 2 3."),
        ("1,0001,000", "1, 0001, 000."),
        ("", ""),
        (" \n\t ", ""),
    ],
)
def test_markup_goes_and_words_stay(written: str, spoken: str) -> None:
    assert text.clean(written) == spoken


@given(st.text(max_size=2000))
@settings(max_examples=300)
def test_nothing_is_lost_between_cleaning_and_speaking(written: str) -> None:
    cleaned = text.clean(written)
    spoken = list(sentences(cleaned))
    assert "".join("".join(spoken).split()) == "".join(cleaned.split())
    assert all(sentence and len(sentence) <= LONGEST_SENTENCE for sentence in spoken)


@given(st.text(alphabet="*_`[]()<>!#|-~\\ \na1,&;", max_size=4000))
@settings(max_examples=300)
def test_cleaning_markup_is_harmless_whatever_the_markup(written: str) -> None:
    assert "\n\n" not in text.clean(written)


@pytest.mark.parametrize(
    "unit", ["*", "_", "`", "[", "](", "<a ", "<", "|", "-", "#", "> ", "\\", "**a", "1,", "a.", "("]
)
@pytest.mark.timeout(60)
def test_a_long_text_of_marks_does_not_hang_it(unit: str) -> None:
    """In linear time this takes a second; in quadratic time, which such patterns easily take, an hour."""
    written = unit * (500_000 // len(unit))
    assert sum(map(len, sentences(text.clean(written)))) <= 2 * len(written)


def test_what_is_too_long_for_the_model_is_encoded_in_parts() -> None:
    def encode(part: str) -> list[int]:
        return [ord(character) for character in part]

    sentence = "one two three, four five six, seven eight nine"
    parts = list(text.encoded(sentence, encode, 20))
    assert all(len(part) <= 20 for part in parts)
    assert "".join(map(chr, (code for part in parts for code in part))).replace(" ", "") == sentence.replace(" ", "")


@pytest.mark.parametrize(
    ("written", "so"),
    [(".", True), ("…！", True), ("?!", True), ("a.", False), ("1", False), ("", False), ("👍", False)],
)
def test_a_pause_is_told_from_nothing_to_say(written: str, so: bool) -> None:
    assert text.only_punctuation(written) is so
