"""Cues are in step with speech, can be read in time, fit the screen, and lose no word, whatever the engine says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiod.subtitles.characters import columns, is_cjk, readable
from audiod.subtitles.cues import DEFAULTS, Cue, Options, make, with_text
from audioproto.worker import Segment, Word


def spoken(text: str, word_s: float = 0.3, pause_s: float = 0.5, start: float = 0.0) -> Segment:
    """Words of one length, with a pause after punctuation."""
    words, now_s = [], start
    for word in text.split():
        words.append(Word(f" {word}", now_s, now_s + word_s))
        now_s += word_s + (pause_s if word[-1] in ".,?!" else 0)
    return Segment(0, start, words[-1].end, f" {text}", words=words)


def texts(cues: list[Cue]) -> list[str]:
    return ["\n".join(cue.lines) for cue in cues]


def times(cues: list[Cue]) -> list[tuple[int, int]]:
    return [(cue.start_ms, cue.end_ms) for cue in cues]


# --- what a reader sees ---------------------------------------------------------------------------------------------


def test_cues_end_with_sentences_and_clauses() -> None:
    speech = spoken(
        "Good morning, and welcome to the show. The people who came here today have walked for many hours, "
        "because there was no train."
    )
    assert texts(make([speech], 60.0)) == [
        "Good morning, and welcome to the show.",
        "The people who came here today\nhave walked for many hours,",
        "because there was no train.",
    ]


def test_segments_of_an_engine_are_no_borders_where_the_sentence_goes_on() -> None:
    first = spoken("The dog ran over")
    second = spoken("the hill.", start=first.end)
    assert texts(make([first, second], 60.0)) == ["The dog ran over the hill."]


def test_no_cue_goes_over_a_long_pause() -> None:
    first = spoken("Wait for it")
    cues = make([first, spoken("now", start=first.end + 2)], 60.0)
    assert texts(cues) == ["Wait for it", "now"]
    assert cues[0].end_ms < cues[1].start_ms - 500


def test_chinese_breaks_at_its_punctuation_and_leaves_names_whole() -> None:
    text = "今天我们来聊一聊 Qwen3-ASR 的部署，它在4GB显存的显卡上也能运行。如果你想试一试，请先安装再下载。"
    assert texts(make([Segment(0, 0.0, 12.0, text)], 12.0)) == [
        "今天我们来聊一聊\nQwen3-ASR 的部署，",
        "它在4GB显存的显卡上也能运行。",
        "如果你想试一试，请先安装再下载。",
    ]


def test_a_short_cue_is_shown_for_as_long_as_it_takes_to_see_it() -> None:
    assert times(make([Segment(0, 1.0, 1.2, "Go!")], 60.0)) == [(1000, 1833)]
    assert times(make([Segment(0, 59.9, 60.0, "Go!")], 60.0)) == [(59_167, 60_000)]


def test_a_cue_stays_until_it_is_read_if_nothing_else_is_said() -> None:
    (latin,) = make([Segment(0, 1.0, 2.0, "x" * 40)], 60.0)
    assert (latin.start_ms, latin.end_ms) == (1000, 3000)
    (cjk,) = make([Segment(0, 1.0, 2.0, "中" * 16)], 60.0)
    assert cjk.end_ms == 1000 + round(16 / 9 * 1000)


def test_a_cue_does_not_stay_longer_than_the_longest() -> None:
    assert times(make([Segment(0, 1.0, 30.0, "Hm.")], 60.0)) == [(1000, 8000)]


def test_gaps_are_two_frames_or_worth_seeing() -> None:
    first, near, far = (
        Segment(0, start, start + 2, " So it was said by everyone, and by her as well.") for start in (0.0, 2.4, 6.0)
    )
    assert times(make([first, near, far], 60.0)) == [(0, 2317), (2400, 4800), (6000, 8400)]


def test_estimates_are_marked() -> None:
    known, unknown = spoken("This is known."), Segment(0, 10.0, 12.0, " This is not.")
    assert [cue.estimated for cue in make([known, unknown], 60.0)] == [False, True]


def test_silence_has_no_cues() -> None:
    assert make([], 3.0) == []
    assert make([Segment(0, 0.0, 3.0, " \n")], 3.0) == []


def test_a_translated_cue_keeps_its_times_and_gets_lines_of_its_own() -> None:
    cue = Cue(1000, 3000, ("ask not what your country", "can do for you,"))
    assert with_text(cue, "不要问你的国家能为你做什么，") == Cue(1000, 3000, ("不要问你的国家能为你做什么，",))
    two = with_text(cue, "fragt nicht, was euer Land für euch tun kann, ")
    assert two.lines == ("fragt nicht,", "was euer Land für euch tun kann,")
    assert [len(line) for line in with_text(cue, "word " * 40).lines] == [99, 99]
    with pytest.raises(ValueError, match="must have a text"):
        with_text(cue, " \n")


def test_options_are_kept() -> None:
    speech = spoken("one two three four five six seven eight nine ten")
    for cue in make([speech], 60.0, Options(columns=10)):
        assert all(len(line) <= 10 for line in cue.lines)
    long = make([spoken("word " * 60)], 60.0, Options(longest_s=2.0))
    assert all(cue.end_ms - cue.start_ms <= 2000 for cue in long)


# --- whatever comes -------------------------------------------------------------------------------------------------

MIXED = st.text(st.sampled_from("ab Z9.,!?-'\"&<>中文字，。「」ー々っの한글\u3000\u00a0é\u0301👩\u200d🇩ก"), max_size=80)
TIMES = st.floats(-5, 70) | st.sampled_from([math.nan, math.inf, -math.inf])


@st.composite
def segments(draw: st.DrawFn, text: st.SearchStrategy[str], time: st.SearchStrategy[float] = TIMES) -> Segment:
    said = draw(text)
    given_words = draw(st.lists(st.sampled_from([*said.split(), *said, "x"]) if said else st.just("x"), max_size=12))
    words = [Word(word, draw(time), draw(time)) for word in given_words]
    return Segment(0, draw(time), draw(time), said, words=words)


def told(given_segments: list[Segment]) -> str:
    return "".join(readable(segment.text) for segment in given_segments)


@settings(deadline=None)
@given(st.lists(segments(MIXED | st.text(max_size=60)), max_size=6), st.floats(1, 60))
def test_cues_follow_one_another_inside_the_audio_and_hold_all_the_text(
    given_segments: list[Segment], duration_s: float
) -> None:
    cues = make(given_segments, duration_s)
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    assert all(first.end_ms <= second.start_ms for first, second in pairwise(cues))
    if cues:
        assert cues[0].start_ms >= 0
        assert cues[-1].end_ms <= duration_s * 1000
    shown = "".join("".join(cue.lines) for cue in cues)
    assert "".join(shown.split()) == "".join(told(given_segments).split())
    assert all(line.strip() for cue in cues for line in cue.lines)


@settings(deadline=None)
@given(st.lists(segments(MIXED), max_size=4), st.floats(20, 60), st.sampled_from([DEFAULTS, Options(12, 10)]))
def test_lines_fit_and_are_as_written(given_segments: list[Segment], duration_s: float, options: Options) -> None:
    whole = told(given_segments)
    for cue in make(given_segments, duration_s, options):
        assert 1 <= len(cue.lines) <= 2
        most = options.cjk_columns if any(map(is_cjk, "".join(cue.lines))) else options.columns
        for line in cue.lines:
            assert line == line.strip(" \u3000")
            assert line in whole
            assert columns(line) <= most


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "Hello", "world.", "extraordinarily", "3,000", "it's"]), min_size=1, max_size=60))
def test_words_in_a_spaced_language_are_never_broken_and_spaces_never_lost(words: list[str]) -> None:
    cues = make([spoken(" ".join(words))], 600.0)
    assert " ".join(line for cue in cues for line in cue.lines) == " ".join(words)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 0.6), st.floats(0, 2.5)), min_size=1, max_size=80))
def test_with_real_times_cues_begin_with_their_first_word_and_end_after_their_last(
    pace: list[tuple[float, float]],
) -> None:
    words, now_s = [], 0.0
    for number, (length_s, pause_s) in enumerate(pace):
        words.append(Word(f" w{number:04}", now_s, now_s + length_s))
        now_s += length_s + pause_s
    cues = make([Segment(0, 0.0, now_s, "".join(word.word for word in words), words=words)], now_s + 3)
    by_text = {word.word.strip(): word for word in words}
    for cue in cues:
        said = " ".join(cue.lines).split()
        first, last = by_text[said[0]], by_text[said[-1]]
        assert cue.end_ms - cue.start_ms <= 7000
        # A cue may wait for the one before it to have been seen, and gives way to the next two frames early.
        assert -1 <= cue.start_ms - first.start * 1000 <= 1000
        assert cue.end_ms >= last.end * 1000 - 90
        assert cue.end_ms - cue.start_ms >= 830
        assert not cue.estimated


@pytest.mark.parametrize("count", [1, 5, 40])
def test_more_cues_than_there_is_time_for_still_follow_one_another(count: int) -> None:
    cues = make([Segment(0, 0.0, 0.0, "x" * 42)] * count, 0.02, replace(DEFAULTS, columns=21))
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    assert all(first.end_ms <= second.start_ms for first, second in pairwise(cues))
    assert "".join("".join(cue.lines) for cue in cues) == "x" * 42 * count
