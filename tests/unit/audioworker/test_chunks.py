"""Where long audio is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioproto.types import PCM_RATE_IN
from audioworker import chunks

Loud = st.lists(st.tuples(st.integers(1, 900), st.booleans()), min_size=1, max_size=12)


def sound(parts: list[tuple[int, bool]]) -> chunks.Audio:
    """Parts of so many centiseconds, loud or silent."""
    pieces = [np.full(length * 160, 0.1 if loud else 0.0, np.float32) for length, loud in parts]
    return np.concatenate(pieces)


@given(Loud, st.integers(1, 8))
@settings(deadline=None)
def test_the_pieces_are_the_whole_and_none_is_too_long(parts: list[tuple[int, bool]], longest_s: int) -> None:
    audio = sound(parts)
    places = list(chunks.split(audio, longest_s))
    assert [begin for begin, _ in places] == [0, *[end for _, end in places[:-1]]]
    assert places[-1][1] == audio.size
    assert all(0 < end - begin <= longest_s * PCM_RATE_IN for begin, end in places)


def test_nothing_has_no_pieces() -> None:
    assert list(chunks.split(np.zeros(0, np.float32), 5)) == []


def test_it_is_cut_in_the_middle_of_a_pause() -> None:
    audio = sound([(450, True), (30, False), (400, True)])
    (_, cut), (begin, end) = chunks.split(audio, 6)
    assert begin == cut
    assert 4.5 < cut / PCM_RATE_IN < 4.8
    assert end == audio.size


def test_a_gap_within_a_word_does_not_count_beside_a_pause() -> None:
    audio = sound([(450, True), (30, False), (50, True), (5, False), (400, True)])
    cut = next(chunks.split(audio, 6))[1]
    assert 4.5 < cut / PCM_RATE_IN < 4.8


@given(Loud)
def test_halves_are_none_of_them_tiny(parts: list[tuple[int, bool]]) -> None:
    audio = sound(parts)
    assert 0.3 * audio.size <= chunks.halves(audio) + 160
    assert chunks.halves(audio) - 160 <= 0.7 * audio.size


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(100, False)], None),
        ([(20, False), (50, True), (30, False)], (0.2, 0.7)),
        ([(1, True), (50, False), (1, True)], (0.0, 0.52)),
    ],
)
def test_what_is_loud_begins_and_ends_with_sound(
    parts: list[tuple[int, bool]], expected: tuple[float, float] | None
) -> None:
    found = chunks.loud(sound(parts))
    assert (found and tuple(place / PCM_RATE_IN for place in found)) == expected


def test_silence_has_noise_of_its_own() -> None:
    hum = np.random.default_rng(0).normal(0, 0.0003, PCM_RATE_IN).astype(np.float32)
    assert chunks.loud(hum) is None
    assert chunks.loud(np.zeros(3, np.float32)) is None
    assert chunks.loud(np.zeros(0, np.float32)) is None
