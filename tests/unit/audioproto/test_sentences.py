"""Where sentences end, in text that is there and in text that comes in pieces."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioproto.sentences import LONGEST_SENTENCE, complete, halves, opening, sentences

MARKED = st.text(alphabet='ab1A .,!?…\n"”。！؟।、，', max_size=900)
"""Text in which most characters are marks."""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("One. Two! Three? Four.", ["One.", "Two!", "Three?", "Four."]),
        ("Dr. Who met J. Smith. They left.", ["Dr. Who met J. Smith.", "They left."]),
        ("It costs 3.14 dollars.", ["It costs 3.14 dollars."]),
        ("你好。再见！", ["你好。", "再见！"]),
        ('She said "Stop!" Then ran.', ['She said "Stop!"', "Then ran."]),
        ("“你好！”他说。", ["“你好！”", "他说。"]),
        ("Well... perhaps.", ["Well... perhaps."]),
        ("こんにちは。「元気?」はい!そう。", ["こんにちは。", "「元気?」", "はい!", "そう。"]),
        ("مرحبا؟ كيف حالك؟ بخير.", ["مرحبا؟", "كيف حالك؟", "بخير."]),
        ("یہ ایک ہے۔ یہ دو ہے۔", ["یہ ایک ہے۔", "یہ دو ہے۔"]),
        ("नमस्ते। आप कैसे हैं? ठीक॥", ["नमस्ते।", "आप कैसे हैं?", "ठीक॥"]),
        ("សួស្តី។ អរគុណ។", ["សួស្តី។", "អរគុណ។"]),
        ("Բարեւ։ Ինչպե՞ս ես։", ["Բարեւ։", "Ինչպե՞ս ես։"]),
        ("Привет! Как дела? Хорошо.", ["Привет!", "Как дела?", "Хорошо."]),
        ("No end", ["No end"]),
        ("Two\nlines", ["Two", "lines"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_pause(line: str, expected: list[str]) -> None:
    assert list(sentences(line)) == expected


def test_text_without_marks_is_cut_at_blanks_and_between_whole_letters() -> None:
    """Thai has no marks and few blanks; its vowels and tones stand on their consonants."""
    thai = "ที่นี่มีน้ำ" * 60 + " " + "ผู้ใหญ่บ้านเดินทาง" * 60
    parts = list(sentences(thai))
    assert "".join(parts) == thai.replace(" ", "")
    assert all(len(part) <= LONGEST_SENTENCE for part in parts)
    assert not any(unicodedata.category(part[0])[0] == "M" for part in parts)


def test_halves_leave_numbers_and_times_whole() -> None:
    assert halves("It is now 12:30 here") == ("It is now", "12:30 here")
    assert halves("They are 1,234,567 strong") == ("They are", "1,234,567 strong")
    assert halves("Some say so, 5 do not.") == ("Some say so,", "5 do not.")


@given(st.text(alphabet="ab ,，。.", min_size=2, max_size=600).map(str.strip).filter(lambda s: len(s) >= 2))
def test_halves_are_both_shorter_and_complete(sentence: str) -> None:
    left, right = halves(sentence)
    assert left or right
    assert max(len(left), len(right)) < len(sentence)
    assert "".join((left + right).split()) == "".join(sentence.split())


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("Hello", ""),
        ("Hello there.", ""),
        ("Hello there. ", "Hello there."),
        ("Hello there. And", "Hello there."),
        ("It costs 3.", ""),
        ("It costs 3.14 dollars.", ""),
        ("Ask Dr. ", ""),
        ("Ask Dr. Who. Then", "Ask Dr. Who."),
        ("He said yahoo! and left", ""),
        ('"Stop!" he', ""),
        ("你好。", ""),
        ("你好。再", "你好。"),
        ("“你好。”再", "“你好。”"),
        ("كيف حالك؟ بخير", "كيف حالك؟"),
        ("नमस्ते। आप", "नमस्ते।"),
        ("A heading\n", ""),
        ("A heading\n\n", "A heading\n\n"),
        ("A heading\nText", "A heading\n"),
        ("A line that goes\non", ""),
        ("1. First\n2. Second", "1. First\n"),
    ],
)
def test_of_text_that_is_still_coming_what_is_certain_is_ready(text: str, ready: str) -> None:
    assert text[: complete(text)].rstrip(" ") == ready


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("Hello there.", "Hello there."),
        ("你好。", "你好。"),
        ("A heading\n", "A heading\n"),
        ("One. Two", "One."),
        ("Ask Dr.", ""),
        ("Hello", ""),
    ],
)
def test_after_a_pause_a_mark_is_an_end(text: str, ready: str) -> None:
    assert text[: complete(text, pausing=True)].rstrip(" ") == ready


@given(MARKED)
def test_whatever_comes_what_was_ready_stays_so(text: str) -> None:
    ready = complete(text)
    assert 0 <= ready <= len(text)
    assert len(text) - ready <= LONGEST_SENTENCE
    for more in ("A", " b", "1", "。", "\n\n"):
        assert complete(text + more) >= ready


@given(MARKED, st.data())
def test_in_whatever_pieces_it_comes_nothing_is_lost(text: str, data: st.DataObject) -> None:
    spoken, waiting, rest = "", "", text
    while rest:
        step = data.draw(st.integers(1, len(rest)))
        waiting, rest = waiting + rest[:step], rest[step:]
        ready = complete(waiting, pausing=data.draw(st.booleans()))
        spoken, waiting = spoken + waiting[:ready], waiting[ready:]
    assert spoken + waiting == text


@pytest.mark.parametrize("unit", ["!", ". ", "\n", " ", "a", '."', "。", "A.", "…”"])
@pytest.mark.timeout(60)
def test_a_long_text_of_marks_does_not_hang_it(unit: str) -> None:
    """The daemon asks on its event loop. In linear time this takes a second, in quadratic time an hour."""
    text = unit * (500_000 // len(unit))
    assert complete(text) >= len(text) - LONGEST_SENTENCE
    assert sum(map(len, sentences(text))) <= len(text)


@pytest.mark.parametrize(
    ("sentence", "head"),
    [
        ("Short, and soon over.", "Short, and soon over."),
        (
            "When the first clause is long enough, it is spoken by itself, so that one hears something soon.",
            "When the first clause is long enough,",
        ),
        (
            "There were 1,000,000 of them in the house that stood beside the river for all these many years.",
            "There were 1,000,000 of them in the house that stood beside the river for all these many years.",
        ),
    ],
)
def test_a_first_sentence_opens_with_its_first_clause(sentence: str, head: str) -> None:
    first, rest = opening(sentence)
    assert first == head
    assert " ".join(filter(None, (first, rest))) == sentence
