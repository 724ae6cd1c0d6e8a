"""Where speech is in long audio, and where it is cut; what is speech is told by loudness here, so that it is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioproto.types import PCM_RATE_IN
from audioworker import speech
from audioworker.chunks import Audio
from daemons import TOP
from zygotes import recording

Kinds = st.lists(st.tuples(st.integers(1, 900), st.sampled_from([0.0, 0.01, 0.1])), min_size=1, max_size=12)
"""Parts of so many centiseconds: silence, noise or speech."""


def sound(parts: list[tuple[int, float]]) -> Audio:
    return np.concatenate([np.full(length * 160, level, np.float32) for length, level in parts])


def loudness(audio: Audio) -> Iterator[float]:
    """Speech is what is above 0.05."""
    for at in range(0, audio.size - speech.FRAME + 1, speech.FRAME):
        yield float(np.abs(audio[at : at + speech.FRAME]).max() > 0.05)


@given(Kinds, st.integers(1, 8))
@settings(deadline=None)
def test_no_speech_is_lost_and_no_piece_is_too_long(parts: list[tuple[int, float]], longest_s: int) -> None:
    audio = sound(parts)
    places = list(speech.pieces(audio, longest_s, loudness))
    assert all(0 <= begin < end <= audio.size for begin, end in places)
    assert all(end - begin <= longest_s * PCM_RATE_IN for begin, end in places)
    assert all(one[1] <= other[0] for one, other in pairwise(places))
    covered = np.zeros(audio.size, bool)
    for begin, end in places:
        covered[begin:end] = True
    assert covered[np.abs(audio) > 0.05].all()


@given(Kinds)
@settings(deadline=None)
def test_long_silence_and_noise_are_in_no_piece(parts: list[tuple[int, float]]) -> None:
    quiet = [(length, min(level, 0.01)) for length, level in parts]
    assert list(speech.pieces(sound(quiet), 30, loudness)) == []
    ((begin, end),) = speech.pieces(sound([*quiet, (100, 0.1), *quiet]), 120, loudness)
    spoken = sum(length for length, _ in quiet) * 160
    assert spoken - 5_400 <= begin <= spoken
    assert spoken + 16_000 <= end <= spoken + 16_000 + 5_400


def test_it_is_cut_in_the_middle_of_the_longest_pause() -> None:
    audio = sound([(420, 0.1), (30, 0.01), (60, 0.1), (50, 0.01), (400, 0.1)])
    (_, end), (begin, _) = speech.pieces(audio, 6, loudness)
    assert 5.1 < begin / PCM_RATE_IN < 5.6
    assert end <= begin + 4_800


def test_speech_is_told_from_noise_by_silero() -> None:
    hear = speech.silero()
    said = recording("jfk")
    noise = np.random.default_rng(0).normal(0, 0.05, 160_000).astype(np.float32)
    assert list(speech.pieces(noise, 30, hear)) == []
    assert list(speech.pieces(np.sin(np.arange(160_000)).astype(np.float32), 30, hear)) == []
    ((begin, end),) = speech.pieces(np.concatenate([noise, said, noise]), 30, hear)
    assert begin / PCM_RATE_IN == pytest.approx(10.0, abs=0.3)
    assert end / PCM_RATE_IN == pytest.approx(21.0, abs=1.0)


def test_it_computes_on_the_thread_that_asks() -> None:
    """Silero's library would take four, which wait for each other actively. In a process that has not loaded it yet."""
    script = (
        "import os, numpy; from audioworker import speech\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count(); hear = speech.silero(); list(hear(numpy.zeros(16000, numpy.float32)))\n"
        "assert count() == before, count()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(TOP / "daemon")})
