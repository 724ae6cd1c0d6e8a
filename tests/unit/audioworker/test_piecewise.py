"""Chunks before a model that may find no end: segments, texts joined, times offset, nothing truncated silently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audioproto.types import PCM_RATE_IN
from audioproto.worker import Segment, Transcribe
from audioworker import piecewise
from audioworker.chunks import Audio
from audioworker.jobs import Jobs
from audioworker.piecewise import Said


def tone(seconds: float, level: float = 0.1) -> Audio:
    return np.full(round(seconds * PCM_RATE_IN), level, np.float32)


def heard(
    audio: Audio,
    hear: piecewise.Hear,
    places: list[tuple[int, int]] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    words: bool = False,
) -> tuple[list[Segment], str]:
    made = piecewise.transcribe(
        audio, places or [(0, audio.size)], Transcribe(7, audio.size, words=words), hear, Jobs(), cancelled
    )
    segments: list[Segment] = []
    while True:
        try:
            segments.append(next(made))
        except StopIteration as end:
            return segments, end.value


def test_texts_are_joined_as_their_scripts_are_and_times_are_those_of_the_audio() -> None:
    audio = np.concatenate([tone(1), tone(1, 0.0), tone(2)])
    texts = iter([Said("One", "en"), Said("two.", "en"), Said("你好", "zh")])
    places = [(0, 16_000), (16_000, 48_000), (48_000, 64_000)]
    segments, language = heard(audio, lambda chunk, before: next(texts), places)
    assert "".join(segment.text for segment in segments) == "One two.你好"
    assert [(segment.start, segment.end) for segment in segments] == [(0.0, 1.0), (2.0, 3.0), (3.0, 4.0)]
    assert language == "en"


def test_what_has_no_end_is_heard_again_in_halves_until_it_has() -> None:
    """The model is stuck by more than 3.5 s; each half is told the text before it."""
    told: list[tuple[float, str]] = []

    def hear(chunk: Audio, before: str) -> Said:
        seconds = chunk.size / PCM_RATE_IN
        told.append((seconds, before))
        return Said("and and and" if seconds > 3.5 else f"{seconds:g}s", "en", endless=seconds > 3.5)

    audio = np.concatenate([tone(2.9), tone(0.2, 0.0), tone(2.9), tone(0.2, 0.0), tone(2.9)])
    segments, _ = heard(audio, hear)
    assert "and" not in "".join(segment.text for segment in segments)
    assert len(segments) >= 3
    assert segments[-1].end == 9.1
    assert told[0] == (9.1, "")
    assert told[-1][1] == segments[-2].text.strip()


def test_what_has_no_end_however_short_is_kept_as_it_is() -> None:
    segments, _ = heard(tone(10), lambda chunk, before: Said("la", "en", endless=True))
    assert len(segments) == 4
    assert all(segment.end - segment.start <= 4 for segment in segments)


def test_nobody_is_asked_of_silence_or_of_what_holds_no_word() -> None:
    def hear(chunk: Audio, before: str) -> Said:
        raise AssertionError

    assert heard(np.concatenate([tone(5, 0.0), tone(0.05), tone(5, 0.0)]), hear) == ([], "")


def test_who_is_given_up_hears_no_more() -> None:
    places = [(0, 16_000), (16_000, 32_000)]
    segments, _ = heard(tone(2), lambda chunk, before: Said("x", "en"), places, cancelled=lambda: True)
    assert len(segments) == 1


def test_words_are_estimates() -> None:
    ((segment,), _) = heard(tone(2), lambda chunk, before: Said("One two", "en"), words=True)
    assert [word.word for word in segment.words] == ["One", " two"]
    assert segment.words_estimated
