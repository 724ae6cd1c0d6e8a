"""What becomes of written text before a voice gets it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioworker import text


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Hello", "Hello."),
        ("Hello!", "Hello!"),
        ("你好", "你好。"),
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


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("One. Two! Three? Four.", ["One.", "Two!", "Three?", "Four."]),
        ("Dr. Who met J. Smith. They left.", ["Dr. Who met J. Smith.", "They left."]),
        ("It costs 3.14 dollars.", ["It costs 3.14 dollars."]),
        ("你好。再见！", ["你好。", "再见！"]),
        ('She said "Stop!" Then ran.', ['She said "Stop!"', "Then ran."]),
        ("“你好！”他说。", ["“你好！”", "他说。"]),
        ("Well... perhaps.", ["Well... perhaps."]),
        ("No end", ["No end"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_pause(line: str, sentences: list[str]) -> None:
    assert list(text.sentences(line)) == sentences


@given(st.text(max_size=2000))
@settings(max_examples=300)
def test_nothing_is_lost_between_cleaning_and_speaking(written: str) -> None:
    cleaned = text.clean(written)
    sentences = list(text.sentences(cleaned))
    assert "".join("".join(sentences).split()) == "".join(cleaned.split())
    assert all(sentence and len(sentence) <= text.LONGEST_SENTENCE for sentence in sentences)


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
    assert sum(map(len, text.sentences(text.clean(written)))) <= 2 * len(written)


@given(st.text(alphabet="ab ,，。.", min_size=2, max_size=600).map(str.strip).filter(lambda s: len(s) >= 2))
def test_halves_are_both_shorter_and_complete(sentence: str) -> None:
    left, right = text.halves(sentence)
    assert left or right
    assert max(len(left), len(right)) < len(sentence)
    assert "".join((left + right).split()) == "".join(sentence.split())


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
