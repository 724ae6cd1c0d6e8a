"""What a word is, and times for words that no model has heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioproto.worker import Word
from audioworker import alignment

Text = st.text(alphabet=st.sampled_from("abZ' 你好,。.!…-7\n한กé—"), max_size=40) | st.text(max_size=40)
Times = st.floats(0, 1e5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, brave new world!", ["Hello,", " brave", " new", " world!"]),
        ("你好，世界。", ["你", "好，", "世", "界。"]),
        ("用 Python3 写的", ["用", " Python3", " 写", "的"]),
        ("“Well-known”  don't — go", ["“Well-known”", "  don't —", " go"]),
        ("안녕 하세요", ["안녕", " 하세요"]),
        ("...ja", ["...ja"]),
        ("…", ["…"]),
        ("", []),
        ("  ", ["  "]),
    ],
)
def test_text_is_cut_into_what_is_timed(text: str, expected: list[str]) -> None:
    assert alignment.pieces(text) == expected


@given(Text)
def test_the_pieces_are_the_text_and_each_says_something(text: str) -> None:
    pieces = alignment.pieces(text)
    assert "".join(pieces) == text
    assert all(map(alignment.spoken, pieces)) or not alignment.spoken(text)


@given(Text, Times, Times)
def test_estimates_ascend_within_their_stretch(text: str, one: float, other: float) -> None:
    start, end = sorted((one, other))
    words = alignment.estimate(text, start, end)
    assert "".join(word.word for word in words) == text
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(start <= time <= end for time in times)


def test_longer_words_take_longer_and_marks_make_a_pause() -> None:
    short, long, last = alignment.estimate("a extraordinarily, no", 0.0, 10.0)
    assert long.end - long.start > 5 * (short.end - short.start)
    assert last.start - long.end > 0.5
    assert last.end == 10.0


@given(st.lists(st.tuples(st.floats(-5, 50), st.floats(-5, 50)), max_size=12), Times)
def test_times_never_run_backwards(heard: list[tuple[float, float]], end: float) -> None:
    words = alignment.ascending([Word("w", *times) for times in heard], 0.0, end)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0.0 <= time <= end for time in times)


def test_good_times_stay() -> None:
    words = [Word("a", 0.1, 0.2), Word("b", 0.2, 0.5, 0.3)]
    assert alignment.ascending(words, 0.0, 1.0) == words
