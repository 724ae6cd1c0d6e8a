"""Cuts long audio where it is quietest.

Pure: samples in, places out. Does not know speech from noise, only loud from quiet.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from audioproto.types import PCM_RATE_IN

Audio = npt.NDArray[np.float32]
"""Mono samples at PCM_RATE_IN, shape [n], nominally within -1 to 1."""

SILENCE = 1e-3
"""Root mean square of a frame below which nobody speaks: -60 dB of full scale."""

_FRAME = PCM_RATE_IN // 100
_PAUSE_FRAMES = 20
"""A cut is in the middle of the quietest 0.2 s: a stop consonant is as quiet, but shorter."""


def split(audio: Audio, longest_s: float) -> Iterator[tuple[int, int]]:
    """Begin and end, in samples, of consecutive pieces of `audio`, none longer than `longest_s` seconds.

    Each is cut at the quietest place of its last third, the latest one where several are as quiet.
    """
    longest = round(longest_s * PCM_RATE_IN)
    begin = 0
    while audio.size - begin > longest:
        window = longest // 3 // _FRAME * _FRAME
        end = begin + longest - window
        end += quietest(audio[end : end + window])
        yield begin, end
        begin = end
    if begin < audio.size:
        yield begin, audio.size


def halves(audio: Audio) -> int:
    """Where to cut `audio` in two: the quietest place of its middle third."""
    third = audio.size // 3 // _FRAME * _FRAME
    return third + quietest(audio[third : audio.size - third])


def quietest(audio: Audio) -> int:
    """The sample in the middle of the quietest 0.2 s; the end of what is shorter than that."""
    energy = _energy(audio)
    if energy.size < _PAUSE_FRAMES:
        return int(audio.size)
    sums = np.convolve(energy, np.ones(_PAUSE_FRAMES), "valid")
    latest = sums.size - 1 - int(np.argmin(sums[::-1]))
    return (latest + _PAUSE_FRAMES // 2) * _FRAME


def loud(audio: Audio) -> tuple[int, int] | None:
    """Begin and end, in samples, of what is louder than SILENCE; None where nothing is."""
    frames = np.flatnonzero(_energy(audio) >= SILENCE**2)
    if not frames.size:
        return None
    return int(frames[0]) * _FRAME, min(audio.size, (int(frames[-1]) + 1) * _FRAME)


def _energy(audio: Audio) -> npt.NDArray[np.float64]:
    """Mean square of each 10 ms; a last frame that is not full counts as one that is."""
    whole = audio.size // _FRAME * _FRAME
    squares = np.square(audio[:whole].reshape(-1, _FRAME)).mean(axis=1, dtype=np.float64)
    return squares if whole == audio.size else np.append(squares, np.square(audio[whole:]).sum() / _FRAME)
