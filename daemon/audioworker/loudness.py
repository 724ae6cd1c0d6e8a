"""Keeps the parts of a long speech equally loud. Loudness is measured as ITU-R BS.1770 does, by pyloudnorm."""

from __future__ import annotations

import numpy as np

from audioworker.engine import Audio

_MOST_DB = 6.0
"""Of change: what differs by more differs on purpose, a whisper after a shout."""

_PEAK = 0.98
_SHORTEST_S = 0.4
"""What the measurement needs."""


def import_library() -> None:
    """What the first part would wait for otherwise."""
    import pyloudnorm  # noqa: F401


class Level:
    """The loudness of the first part, which the others are brought to."""

    def __init__(self, rate_hz: int) -> None:
        import pyloudnorm

        self._rate_hz = rate_hz
        self._meter = pyloudnorm.Meter(rate_hz)
        self._goal: float | None = None

    def even(self, audio: Audio) -> Audio:
        """`audio` as loud as the first part was. What is too short or too quiet to be measured stays as it is."""
        if audio.size <= _SHORTEST_S * self._rate_hz:
            return audio
        loudness = float(self._meter.integrated_loudness(audio.astype(np.float64)))
        if not np.isfinite(loudness):
            return audio
        if self._goal is None:
            self._goal = loudness
            return audio
        gain = 10 ** (min(_MOST_DB, max(-_MOST_DB, self._goal - loudness)) / 20)
        peak = float(np.abs(audio).max())
        louder: Audio = audio * np.float32(min(gain, max(1.0, _PEAK / peak)) if gain > 1 else gain)
        return louder
