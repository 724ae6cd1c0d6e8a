"""When a live turn is heard, that its window stays short, and that its texts, one after another, are what was said."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiod.api.realtime.live_turn import LiveTurn, Window
from audioproto.worker import Segment, Word

SECOND = 16_000
ORIGIN = 1000


def said(*words: str, each_s: float = 0.5, with_words: bool = True) -> list[Segment]:
    times = [Word(word, n * each_s, (n + 1) * each_s) for n, word in enumerate(words)]
    return [Segment(1, 0.0, len(words) * each_s, "".join(words), words=times if with_words else [])]


def test_a_hearing_is_due_when_there_is_enough_new_audio() -> None:
    turn = LiveTurn(ORIGIN, SECOND)
    assert turn.window(ORIGIN + SECOND - 1) is None
    window = Window(ORIGIN, ORIGIN + SECOND)
    assert turn.window(ORIGIN + SECOND) == window
    turn.hear(said(" one", " two"), window)
    assert turn.window(ORIGIN + 2 * SECOND - 1) is None
    assert turn.window(ORIGIN + 3 * SECOND) == Window(ORIGIN, ORIGIN + 3 * SECOND), "all that has come meanwhile"


def test_one_that_fails_is_made_up_for_by_the_next() -> None:
    turn = LiveTurn(ORIGIN, SECOND)
    turn.missed(ORIGIN + SECOND)
    assert turn.window(ORIGIN + SECOND + 1) is None
    assert turn.window(ORIGIN + 2 * SECOND) == Window(ORIGIN, ORIGIN + 2 * SECOND)


def test_what_is_certain_is_told_once_and_the_rest_at_the_end() -> None:
    turn = LiveTurn(ORIGIN, SECOND)
    first = turn.hear(said(" One", " too"), Window(ORIGIN, ORIGIN + SECOND))
    assert (first.text, first.partial) == ("", " One too")
    second = turn.hear(said(" one", " two", " three"), Window(ORIGIN, ORIGIN + 2 * SECOND))
    assert (second.text, second.partial) == (" one", " two three")
    last = turn.hear(said(" one", " two", " three."), turn.rest(ORIGIN + 2 * SECOND))
    assert (last.text, turn.end(ORIGIN + 2 * SECOND).text) == (" two three.", "")


def test_a_word_counts_from_when_its_last_audio_came() -> None:
    turn = LiveTurn(ORIGIN, SECOND)
    for second in range(1, 4):
        turn.came(ORIGIN + second * SECOND, 100.0 + second)
    turn.hear(said(" a", " b", each_s=1.5), Window(ORIGIN, ORIGIN + 3 * SECOND))
    assert turn.hear(said(" a", " b", each_s=1.5), Window(ORIGIN, ORIGIN + 3 * SECOND)).came_at == [102.0, 103.0]


@pytest.mark.parametrize(
    ("before", "after", "together"),
    [
        ("one", "two", "one two"),
        ("一", "二", "一二"),
        ("하나", "둘", "하나 둘"),
        ("one", "二", "one二"),
        ("so", ", no", "so, no"),
    ],
)
def test_words_of_two_hearings_are_parted_as_their_script_is(before: str, after: str, together: str) -> None:
    turn = LiveTurn(0, SECOND)
    for _ in range(2):
        told = turn.hear(said(before), Window(0, SECOND)).text or before
    turn.hear(said(before), Window(0, 20 * SECOND))
    assert turn.start > 0
    turn.hear(said(after), Window(turn.start, 21 * SECOND))
    assert told + turn.end(21 * SECOND).text == together


def test_an_engine_without_times_of_words_has_its_segments_for_words() -> None:
    turn = LiveTurn(0, SECOND)
    turn.hear(said(" one", " two", with_words=False), Window(0, SECOND))
    assert turn.hear(said(" One", " two.", with_words=False), Window(0, SECOND)).text == " One two."


def test_who_is_behind_hears_no_more_than_the_longest_window_at_once() -> None:
    turn = LiveTurn(0, SECOND)
    hearings = 0
    while window := turn.window(300 * SECOND):
        assert window.end - window.start <= 28 * SECOND
        turn.hear([], window)
        hearings += 1
    assert 300 * SECOND - turn.start <= 28 * SECOND
    assert hearings < 60


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(SECOND // 2, 6 * SECOND), st.sampled_from(["ab", "字"]))
def test_a_speech_comes_out_whole_however_the_audio_comes(seed: int, interval: int, kind: str) -> None:
    """Hearings are late, some fail, and the last word of each is wrong."""
    chance = random.Random(seed)
    speech: list[Word] = []
    now_s = 0.0
    for number in range(60):
        length_s = chance.uniform(0.2, 0.6)
        text = f" {chance.choice(['the', 'no', 'so'])}" if kind == "ab" else chr(0x4E00 + chance.randrange(40))
        speech.append(Word(text + ("." if number % 9 == 8 else ""), now_s, now_s + length_s))
        now_s += length_s
    end = ORIGIN + int(now_s * SECOND) + 1
    turn, told, at = LiveTurn(ORIGIN, interval), "", ORIGIN

    def heard(window: Window) -> list[Segment]:
        offset_s = (window.start - ORIGIN) / SECOND
        words = [
            Word(word.word, word.start - offset_s, word.end - offset_s)
            for word in speech
            if word.start >= offset_s - 0.01 and word.end * SECOND <= window.end - ORIGIN
        ]
        return [Segment(1, 0.0, 0.0, "", words=words)]

    while at < end:
        at = min(end, at + chance.randrange(SECOND // 10, 3 * SECOND))
        turn.came(at, 0.0)
        while window := turn.window(at):
            assert ORIGIN <= window.start < window.end <= at
            if chance.random() < 0.2:
                turn.missed(at)
                continue
            (segment,) = heard(window)
            end_s = (window.end - window.start) / SECOND
            guess = Word(f" guess{chance.random()}", end_s, end_s)
            told += turn.hear([Segment(1, 0.0, 0.0, "", words=[*segment.words, guess])], window).text
    told += turn.hear(heard(turn.rest(end)), turn.rest(end)).text
    told += turn.end(end).text
    assert told == "".join(word.word for word in speech)
