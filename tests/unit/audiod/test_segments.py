"""Sentences as segments of their own."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from audiod.segments import by_sentence
from audioproto.worker import Segment, Word
from audioworker import alignment


def heard(text: str) -> Segment:
    return Segment(1, 10.0, 40.0, text, tokens=[1, 2], words=alignment.estimate(text, 10.0, 40.0), words_estimated=True)


def test_each_sentence_is_a_segment_with_its_own_times() -> None:
    one, two, three = by_sentence(heard("We met Dr. Who. He said: 3.14! 你好，世界。"))
    assert [one.text, two.text, three.text] == ["We met Dr. Who.", " He said: 3.14!", " 你好，世界。"]
    assert (one.start, three.end) == (10.0, three.words[-1].end)
    assert one.end <= two.start < two.end <= three.start
    assert [word.word for word in one.words] == ["We", " met", " Dr.", " Who."]
    assert two.words_estimated


def test_one_sentence_keeps_its_tokens() -> None:
    (only,) = by_sentence(heard("And so it goes."))
    assert only.tokens == [1, 2]


def test_a_segment_whose_words_are_not_its_text_stays_as_it_is() -> None:
    for words in ([], [Word("Yes", 0.0, 1.0)]):
        segment = Segment(1, 0.0, 2.0, "Yes. No.", words=words)
        assert list(by_sentence(segment)) == [segment]


@given(st.text(st.sampled_from("ab .!?…\n。！，3「」") | st.characters(), max_size=60))
def test_nothing_is_lost_and_times_ascend(text: str) -> None:
    segments = list(by_sentence(heard(text)))
    assert "".join(segment.text for segment in segments) == text
    assert all(segment.start <= segment.end for segment in segments)
    assert all(one.end <= other.start for one, other in pairwise(segments))
    assert all(segment.text.strip() for segment in segments) or not text.strip()
