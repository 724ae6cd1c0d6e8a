"""Where speech begins and ends, from the speech probabilities of successive frames: pure, without audio or clock.

The frames are media/vad.py's, FRAME_SAMPLES of mono PCM at 16 kHz each. Positions are samples since the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from audioproto.types import PCM_RATE_IN

FRAME_SAMPLES = 512
"""Silero VAD's frame at 16 kHz: 32 ms."""

_ONSET_FRAMES = 2
"""Speech begins with so many frames above the threshold: a click or the edge of a tone fills one."""

_HYSTERESIS = 0.15
"""What is under the threshold by less is neither speech nor silence, as in Silero's VADIterator."""


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """`threshold` from 0 to 1; a turn begins `prefix_padding_ms` before its speech and ends with so much silence."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A turn has begun, at a sample that is heard already: its padding is part of it."""

    at: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The turn has ended, before the sample `at`: the silence that ended it is part of it."""

    at: int


Edge = Union[SpeechStarted, SpeechStopped]


class TurnDetector:
    """Finds turns. The first frame begins at `origin`; no turn begins before `earliest`.

    `settings` may be changed at any time.
    """

    def __init__(self, settings: TurnSettings, origin: int = 0, earliest: int = 0) -> None:
        self.settings = settings
        self._position = origin
        self._earliest = earliest
        self._onset_frames = 0
        self._silent_since: int | None = None
        self.speaking = False

    @property
    def horizon(self) -> int:
        """What is before this sample can be in no turn that has not begun yet."""
        padding = _samples(self.settings.prefix_padding_ms)
        return max(self._earliest, self._position - self._onset_frames * FRAME_SAMPLES - padding)

    def restart(self, earliest: int) -> None:
        """Forget the turn that has begun, if one has; none begins before `earliest` from here on."""
        self.speaking = False
        self._onset_frames = 0
        self._silent_since = None
        self._earliest = earliest

    def hear(self, probability: float) -> Edge | None:
        """The next frame's probability of speech, and what it makes clear."""
        start = self._position
        self._position += FRAME_SAMPLES
        if probability >= self.settings.threshold:
            self._silent_since = None
            return None if self.speaking else self._hear_onset()
        if not self.speaking:
            self._onset_frames = 0
            return None
        if probability >= self.settings.threshold - _HYSTERESIS:
            return None
        if self._silent_since is None:
            self._silent_since = start
        end = self._silent_since + _samples(self.settings.silence_duration_ms)
        if self._position < end:
            return None
        self.restart(end)
        return SpeechStopped(end)

    def _hear_onset(self) -> SpeechStarted | None:
        self._onset_frames += 1
        if self._onset_frames < _ONSET_FRAMES:
            return None
        begin = self.horizon
        self.speaking = True
        self._onset_frames = 0
        return SpeechStarted(begin)


def _samples(milliseconds: int) -> int:
    return milliseconds * PCM_RATE_IN // 1000
