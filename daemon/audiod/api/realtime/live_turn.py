"""A turn that is heard while it is spoken: when to hear, which audio, and what is to be told of it. Pure.

Which words are certain is audiod/live.py's. Positions are samples at 16 kHz since the session's first, as machine.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from audiod.live import DEFAULTS, Options, StablePrefix
from audioproto.spacing import glue
from audioproto.types import PCM_RATE_IN
from audioproto.worker import Segment, Word


@dataclass(frozen=True, slots=True)
class Window:
    """The audio to hear, from `start` to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a hearing brought: text that never changes, when the audio of each of its words came, and what may follow.

    `text` and `partial` begin with the space that parts them from the text before.
    """

    text: str
    came_at: Sequence[float]
    partial: str


class LiveTurn:
    """A turn from sample `start` on, to be heard whenever there are `interval` more samples."""

    def __init__(self, start: int, interval: int, options: Options = DEFAULTS) -> None:
        self._origin = start
        self._interval = interval
        self._longest = int(options.longest_window_s * PCM_RATE_IN)
        self._prefix = StablePrefix(options)
        self._heard = start
        """Up to where it has been heard, or a hearing has failed."""
        self._last = ""
        """The text of the last word that is certain."""
        self._arrivals: deque[tuple[int, float]] = deque()

    @property
    def start(self) -> int:
        """The audio before this sample is needed no more."""
        return self._origin + round(self._prefix.start_s * PCM_RATE_IN)

    def came(self, end: int, at: float) -> None:
        """The audio up to the sample `end` came `at` this time, by any clock."""
        self._arrivals.append((end, at))

    def window(self, end: int) -> Window | None:
        """What to hear while the turn goes on and there is audio up to `end`; None where it is too early.

        Who is far behind hears no more at once than the longest window, and so catches up.
        """
        if end < self._heard + self._interval:
            return None
        return Window(self.start, min(end, self.start + self._longest))

    def rest(self, end: int) -> Window:
        """What to hear at last, when the turn has ended before the sample `end`: all that has not been let go."""
        return Window(self.start, max(self.start, end))

    def missed(self, end: int) -> None:
        """A hearing has failed that began with audio up to `end`: the next one is due an interval later."""
        self._heard = end

    def hear(self, segments: Sequence[Segment], window: Window) -> Told:
        """What was heard in `window`, with times from its start."""
        self._heard = window.end
        offset_s = (window.start - self._origin) / PCM_RATE_IN
        words = [
            msgspec.structs.replace(word, start=word.start + offset_s, end=word.end + offset_s)
            for segment in segments
            for word in segment.words or [Word(segment.text, segment.start, segment.end)]
        ]
        heard = self._prefix.hear(words, (window.end - self._origin) / PCM_RATE_IN)
        return self._told(heard.committed, heard.tentative)

    def end(self, end: int) -> Told:
        """The turn has ended before the sample `end`, and all of it was heard: everything is certain."""
        return self._told(self._prefix.end_turn((end - self._origin) / PCM_RATE_IN).committed, ())

    def _told(self, certain: Sequence[Word], tentative: Sequence[Word]) -> Told:
        came_at = [self._came_at(word) for word in certain] if self._arrivals else []
        text = self._joined(certain)
        if certain:
            self._last = certain[-1].word
        while len(self._arrivals) > 1 and self._arrivals[0][0] < self.start:
            self._arrivals.popleft()
        return Told(text, came_at, self._joined(tentative))

    def _joined(self, words: Sequence[Word]) -> str:
        text = "".join(word.word for word in words)
        return (glue(self._last, text) if text[:1].isalnum() else "") + text

    def _came_at(self, word: Word) -> float:
        """When the last of its audio came."""
        end = self._origin + word.end * PCM_RATE_IN
        return next((at for arrived, at in self._arrivals if arrived >= end), self._arrivals[-1][1])
