"""Characters get their times from the words that hold them, however an engine writes those, or a fair share."""

from __future__ import annotations

import math

from audiod.subtitles.timing import Timed, time_characters
from audioproto.worker import Segment, Word


def timed(text: str, *words: Word, start: float = 1.0, end: float = 3.0) -> list[Timed]:
    return time_characters([Segment(0, start, end, text, words=list(words))], 10_000)


def starts(characters: list[Timed]) -> dict[str, int]:
    return {one.character: one.start_ms for one in reversed(characters)}


def test_words_bring_their_times_and_punctuation_stays_with_its_word() -> None:
    a, comma, _, quote, b, end = timed(' a, "b.', Word(" a,", 1.2, 1.5), Word(' "b.', 2.0, 2.5))[1:]
    assert a == Timed("a", 1200, 1500, estimated=False)
    assert (comma.start_ms, comma.end_ms, comma.estimated) == (1500, 1500, False)
    assert (quote.start_ms, b.start_ms, b.end_ms) == (2000, 2000, 2500)
    assert (end.end_ms, end.ends_segment) == (2500, True)


def test_words_of_an_aligner_have_no_punctuation_and_are_found_all_the_same() -> None:
    found = timed("他说：「好」。3,000!", *(Word(w, 1 + n / 4, 1.25 + n / 4) for n, w in enumerate("他说好")))
    assert starts(found)["说"] == 1250
    assert starts(found)["「"] == starts(found)["好"] == 1500
    assert [one.character for one in found if one.estimated] == list("3,000")
    joined = timed("well-known 3,000", Word("wellknown", 1.0, 2.0), Word("3000", 2.5, 3.0))
    assert not any(one.estimated for one in joined)
    assert (starts(joined)["w"], starts(joined)["3"]) == (1000, 2500)


def test_a_word_of_many_characters_is_one_word() -> None:
    assert [one.within_word for one in timed("今天好", Word("今天", 1.0, 1.4), Word("好", 1.4, 2.0))] == [
        True,
        False,
        False,
    ]


def test_words_that_are_missing_are_estimated_between_those_that_are_not() -> None:
    found = timed("one two three", Word("one", 1.0, 1.5), Word("three", 2.0, 3.0))
    two = [one for one in found if one.estimated and one.character != " "]
    assert "".join(one.character for one in two) == "two"
    assert 1500 <= two[0].start_ms < two[-1].end_ms <= 2000


def test_a_word_that_is_not_in_the_text_moves_no_other() -> None:
    words = [Word("one", 1.0, 1.5), Word("zwei", 1.5, 2.0), Word("e", 2.0, 2.1), Word("three", 2.1, 3.0)]
    found = timed("one two three", *words)
    assert starts(found)["h"] >= 2100
    assert "".join(one.character for one in found if not one.estimated).split() == ["one", "three"]


def test_without_words_time_is_shared_out_by_width_with_pauses_at_punctuation() -> None:
    han, latin = timed("汉a", start=0, end=3)
    assert (han.start_ms, han.end_ms, latin.end_ms) == (0, 2000, 3000)
    assert han.estimated
    a, comma, _, b = timed("a, b", start=0, end=3)
    assert b.start_ms - comma.end_ms > a.end_ms - a.start_ms
    assert b.end_ms == 3000
    _, comma, now = timed("好,今", start=0, end=9)
    assert now.start_ms - comma.end_ms == 4000
    point, *_ = (one for one in timed("3.5", start=0, end=3) if one.character == ".")
    assert (point.start_ms, point.end_ms) == (1000, 2000)


def test_times_that_are_none_are_put_right() -> None:
    segments = [
        Segment(0, 2.0, 1.0, "a"),
        Segment(0, -5.0, math.nan, "b"),
        Segment(0, math.nan, math.inf, "c", words=[Word("c", math.inf, -math.inf)]),
    ]
    times = [time for one in time_characters(segments, 10_000) for time in (one.start_ms, one.end_ms)]
    assert times == sorted(times)
    assert times[0] == 2000
    assert times[-1] <= 10_000


def test_nothing_unreadable_is_timed() -> None:
    assert time_characters([Segment(0, 0, 1, ""), Segment(0, 0, 1, "\x00\ufeff\ud800")], 1000) == []
    assert "".join(one.character for one in timed("a\n\t b\u3000 c\u00a0d\x07")) == "a b\u3000c\u00a0d"
