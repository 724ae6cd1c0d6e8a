"""When each character of a transcript is said: by the times of words, or else in proportion to its width.

Takes whatever an engine gives for times, and words that are missing or written differently; knows nothing of cues.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audiod.subtitles.characters import columns, is_cjk, is_opening, is_space, readable
from audioproto.worker import Segment, Word

SENTENCE_END = ".!?…。！？｡؟۔।॥"
CLAUSE_END = ",;:、，；：､،؛—–"

_SENTENCE_PAUSE = 8
_CLAUSE_PAUSE = 4
"""Silence at punctuation, as the columns of text that could be said in it. Measured against Whisper's times of words in
five recordings, four of them English: the mean error fell from 0.40 to 0.25 s where nothing but the end was known."""

_LOOK_AHEAD = 40
"""Letters of text that no word need claim before the next one is found again."""


class Timed(NamedTuple):
    """One character. `estimated` if no word of known time holds it."""

    character: str
    start_ms: int
    end_ms: int
    estimated: bool
    within_word: bool = False
    """The next character belongs to the same word of the engine's."""
    ends_segment: bool = False


class _Span(NamedTuple):
    """Characters `first` to before `last` of a segment's text are said from `start_ms` to `end_ms`."""

    first: int
    last: int
    start_ms: int
    end_ms: int


def time_characters(segments: Sequence[Segment], duration_ms: int) -> list[Timed]:
    """All that is to be read, with ascending times from 0 to `duration_ms`.

    The text is that of the segments, one after another as they are; a word only brings its time. A word whose letters
    are not found in the text is passed over, and text that no word covers has estimated times: its stretch between
    known times, shared out by width.
    """
    timed: list[Timed] = []
    now_ms = 0
    for segment in segments:
        text = readable(segment.text)
        if not text:
            continue
        start_ms = _clamp(segment.start, now_ms, duration_ms)
        end_ms = _clamp(segment.end, start_ms, duration_ms)
        known = [] if segment.words_estimated else list(_known(text, segment.words, start_ms, end_ms))
        timed += _spread(text, known, start_ms, end_ms)
        last = next((n for n in range(len(timed) - 1, -1, -1) if not is_space(timed[n].character)), -1)
        timed[last] = timed[last]._replace(ends_segment=True)
        now_ms = end_ms
    return timed


def _clamp(time_s: float, earliest_ms: int, latest_ms: int) -> int:
    if math.isnan(time_s):
        return earliest_ms
    return round(min(max(time_s * 1000, earliest_ms), latest_ms))


def _known(text: str, words: Sequence[Word], start_ms: int, end_ms: int) -> Iterator[_Span]:
    """Where the words are in the text, by their letters and digits alone: aligners drop punctuation."""
    places = [place for place, character in enumerate(text) if character.isalnum()]
    letters = "".join(text[place] for place in places)
    at, now_ms = 0, start_ms
    for word in words:
        wanted = "".join(filter(str.isalnum, word.word))
        found = letters.find(wanted, at, at + len(wanted) + _LOOK_AHEAD) if wanted else -1
        if found < 0 or (found > at and not _begins(text, places[found])):
            continue
        at = found + len(wanted)
        begun_ms = _clamp(word.start, now_ms, end_ms)
        now_ms = _clamp(word.end, begun_ms, end_ms)
        yield _Span(places[found], places[at - 1] + 1, begun_ms, now_ms)


def _begins(text: str, place: int) -> bool:
    return place == 0 or not text[place - 1].isalnum() or is_cjk(text[place])


def _spread(text: str, known: Sequence[_Span], start_ms: int, end_ms: int) -> Iterator[Timed]:
    if not known:
        yield from _share(text, start_ms, end_ms, estimated=True)
        return
    at, now_ms = 0, start_ms
    for span in known:
        before = text[at : span.first]
        yield from _between(before, now_ms, span.start_ms, 0 if at == 0 else _opening(before))
        *inner, last = _share(text[span.first : span.last], span.start_ms, span.end_ms, estimated=False)
        yield from (one._replace(within_word=True) for one in inner)
        yield last
        at, now_ms = span.last, span.end_ms
    yield from _between(text[at:], now_ms, end_ms, len(text))


def _between(text: str, start_ms: int, end_ms: int, opening: int) -> Iterator[Timed]:
    """What no word covers: said in between, and punctuation at once with its neighbour, the next one from `opening`."""
    letters = [place for place, character in enumerate(text) if character.isalnum()]
    first, last = (letters[0], letters[-1] + 1) if letters else (opening, opening)
    yield from _share(text[:first], start_ms, start_ms, estimated=False)
    yield from _share(text[first:last], start_ms, end_ms, estimated=True)
    yield from _share(text[last:], end_ms, end_ms, estimated=False)


def _opening(text: str) -> int:
    """Where the punctuation before a word begins: behind the last space, or with the first opening bracket."""
    spaces = [place for place, character in enumerate(text) if is_space(character)]
    if spaces:
        return spaces[-1] + 1
    return next((place for place, character in enumerate(text) if is_opening(character)), len(text))


def _share(text: str, start_ms: int, end_ms: int, *, estimated: bool) -> Iterator[Timed]:
    """`text` over that time, each character in proportion to its width, with pauses at punctuation."""
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    weights = [columns(text[place]) if first <= place < last else 0 for place in range(len(text))]
    pauses = [_pause(text, place, last) for place in range(len(text))]
    total = sum(weights) + sum(pauses)

    def time_ms(weight: int) -> int:
        return start_ms + (end_ms - start_ms) * weight // total if total else end_ms

    done = 0
    for character, weight, pause in zip(text, weights, pauses, strict=True):
        yield Timed(character, time_ms(done), time_ms(done + weight), estimated)
        done += weight + pause


def _pause(text: str, place: int, last: int) -> int:
    """Columns of silence behind a character: none at the end of the text, and none inside a number or a name."""
    if place + 1 >= last:
        return 0
    following = text[place + 1]
    if text[place].isascii() and following.isalnum() and not is_cjk(following):
        return 0
    return _SENTENCE_PAUSE if text[place] in SENTENCE_END else _CLAUSE_PAUSE if text[place] in CLAUSE_END else 0
