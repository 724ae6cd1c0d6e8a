"""What was committed never changes, nothing is said twice or lost, and the audio to hear again stays short."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiod.live import Options, StablePrefix
from audioproto.worker import Word


def words(text: str, start: float = 0.0, each_s: float = 0.5) -> list[Word]:
    said = text.split()
    return [Word(f" {word}", start + n * each_s, start + (n + 1) * each_s) for n, word in enumerate(said)]


def text(said: tuple[Word, ...] | list[Word]) -> str:
    return "".join(word.word for word in said).strip()


def test_words_are_final_once_two_hypotheses_have_them_alike() -> None:
    live = StablePrefix()
    heard = live.hear(words("and so my fell"), 2.0)
    assert (text(heard.committed), text(heard.tentative)) == ("", "and so my fell")
    heard = live.hear(words("And so, my fellow Americans"), 3.0)
    assert (text(heard.committed), text(heard.tentative)) == ("And so, my", "fellow Americans")
    heard = live.hear(words("And so my fellow Americans ask"), 3.5)
    assert (text(heard.committed), text(heard.tentative)) == ("fellow Americans", "ask")
    assert text(live.committed) == "And so, my fellow Americans"


def test_more_hypotheses_must_agree_where_that_is_asked() -> None:
    live = StablePrefix(Options(agreement=3))
    assert [text(live.hear(words(said), 1.0).committed) for said in ("a b", "a b", "a c", "a c")] == ["", "", "a", ""]


@pytest.mark.parametrize(
    ("now", "tentative"),
    [
        ("one too three", "three"),
        ("won to three", "three"),
        ("one _ three", "three"),
        ("one three", ""),
        ("_ two three", "three"),
        ("well one two three", "three"),
        ("one two two three", "two three"),
        ("one", ""),
        ("", ""),
    ],
)
def test_a_change_of_mind_about_what_is_final_is_neither_taken_nor_said_again(now: str, tentative: str) -> None:
    live = StablePrefix()
    live.hear(words("one two"), 1.0)
    live.hear(words("one two"), 1.2)
    heard = live.hear([word for word in words(now) if word.word != " _"], 2.0)
    assert text(live.committed) == "one two"
    assert text(heard.tentative) == tentative


def test_the_end_of_a_turn_makes_all_final_and_the_next_begins_anew() -> None:
    live = StablePrefix()
    live.hear(words("yes I"), 1.0)
    assert text(live.end_turn(1.5).committed) == "yes I"
    assert live.start_s == 1.5
    live.hear(words("yes I do", start=1.5), 3.0)
    assert text(live.end_turn(3.5).committed) == "yes I do"
    assert text(live.end_turn(9.0).committed) == ""
    assert text(live.committed) == "yes I yes I do"


def test_audio_is_let_go_at_the_end_of_a_sentence() -> None:
    live = StablePrefix()
    said = "It was long. And then more came"
    live.hear(words(said, each_s=3.0), 21.0)
    assert live.start_s == 0.0
    live.hear(words(said, each_s=3.0), 21.0)
    assert live.start_s == 9.0
    heard = live.hear(words("And then more came again", start=9.0, each_s=3.0), 24.0)
    assert text(heard.tentative) == "again"


def test_audio_is_let_go_even_if_nothing_is_ever_certain() -> None:
    live = StablePrefix(Options(window_s=5, longest_window_s=8))
    for second in range(1, 60):
        live.hear(words(" ".join(f"x{second}y{n}" for n in range(4)), start=live.start_s, each_s=1.0), float(second))
        assert second - live.start_s <= 8


# --- whatever comes -------------------------------------------------------------------------------------------------

TIME = st.floats(allow_nan=True, allow_infinity=True)
WORD = st.builds(Word, st.sampled_from([" a", " b", "字", "。", " A,", "", " "]), TIME, TIME)


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(WORD, max_size=8), st.floats(0, 3), st.booleans()), max_size=12))
def test_what_is_committed_only_grows_in_order_of_time(steps: list[tuple[list[Word], float, bool]]) -> None:
    live = StablePrefix(Options(window_s=4, longest_window_s=6))
    told: list[Word] = []
    now_s = 0.0
    for said, passed_s, ends in steps:
        now_s += passed_s
        start_s = live.start_s
        told += live.hear(said, now_s).committed
        assert live.committed == tuple(told)
        assert live.start_s >= start_s
        assert now_s - live.start_s <= 6
        if ends:
            told += live.end_turn(now_s).committed
            assert live.committed == tuple(told)
    assert all(word.start <= word.end for word in told)
    assert all(first.end <= second.start for first, second in pairwise(told))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 1.0, 2.0]), st.integers(1, 3), st.sampled_from(["ab", "字"]))
def test_a_speech_comes_out_whole_whatever_the_engine_guesses_for_its_end(
    seed: int, step_s: float, unsure: int, kind: str
) -> None:
    """The last words of each hypothesis are wrong, each time otherwise, as those of cut audio are."""
    chance = random.Random(seed)
    speech, now_s = [], 0.0
    for number in range(40):
        length_s = chance.uniform(0.2, 0.6)
        said = f" {chance.choice(['the', 'a', 'no', 'so'])}" if kind == "ab" else chr(0x4E00 + chance.randrange(30))
        speech.append(Word(said + ("." if number % 9 == 8 else ""), now_s, now_s + length_s))
        now_s += length_s
    live = StablePrefix()
    at_s, guess = 0.0, 0
    while at_s < now_s:
        at_s = min(at_s + step_s, now_s)
        heard = [word for word in speech if word.start >= live.start_s - 0.01 and word.end <= at_s]
        for place in range(max(0, len(heard) - unsure), len(heard)):
            guess += 1
            heard[place] = Word(f" guess{guess}", heard[place].start, heard[place].end)
        live.hear(heard, at_s)
        assert text(speech).startswith(text(live.committed))
    live.hear([word for word in speech if word.start >= live.start_s - 0.01], now_s)
    live.end_turn(now_s)
    assert text(live.committed) == text(speech)
