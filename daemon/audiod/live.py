"""Live transcription: which words of ever new hypotheses are final, and from when on audio is still needed.

Pure: no audio, no clock, no engine. The audio since `start_s` is heard again and again as it grows; what the last
hypotheses agree on is committed and never changes, what comes after it is tentative.

Source: local agreement, Liu, Spanakis and Niehues 2020 (Low-Latency Sequence-to-Sequence Speech Recognition and
Translation by Partial Hypothesis Selection); with Whisper: Macháček, Dabre and Bojar 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from audioproto.worker import Word

_NEAR_S = 0.001
"""Times are sums, and as exact as such are."""

_SENTENCE_END = tuple(".!?…。！？｡؟।")


@dataclass(frozen=True, slots=True)
class Options:
    """How certain a word must be, and how much audio is heard again each time."""

    agreement: int = 2
    """Hypotheses in a row that must have a word, and all before it, alike."""
    window_s: float = 15.0
    """With more audio than this, what is committed is no longer heard again."""
    longest_window_s: float = 28.0
    """Of so much audio half is let go even if nothing is certain: Whisper hears 30 s at once."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one hypothesis brought: words that are now final, and those after them that may still change."""

    committed: tuple[Word, ...]
    tentative: tuple[Word, ...]


DEFAULTS = Options()


class StablePrefix:
    """One stream of speech. Times are in seconds from its beginning; words carry their own spaces, as engines' do."""

    def __init__(self, options: Options = DEFAULTS) -> None:
        self._options = options
        self._committed: list[Word] = []
        self._in_window = 0
        """The first committed word that the next hypothesis has again."""
        self._tails: list[list[Word]] = []
        """What the last hypotheses have after the committed words."""
        self.start_s = 0.0
        """Audio before this is no longer needed."""

    @property
    def committed(self) -> tuple[Word, ...]:
        """All that is final; only ever grows."""
        return tuple(self._committed)

    def hear(self, words: Sequence[Word], until_s: float) -> Heard:
        """A hypothesis for the audio from `start_s` to `until_s`. Afterwards `start_s` may be later."""
        said = [word for word in words if word.word.strip()]
        tail = said[self._overlap(said) :]
        self._tails = [*self._tails, tail][-self._options.agreement :]
        agreed = _agreed(self._tails) if len(self._tails) == self._options.agreement else 0
        committed = self._commit(agreed)
        committed += self._roll(until_s)
        return Heard(tuple(committed), tuple(self._tails[-1]))

    def end_turn(self, until_s: float) -> Heard:
        """Nobody speaks any more: what was tentative is final, and what comes next is heard without what was before."""
        committed = self._commit(len(self._tails[-1])) if self._tails else []
        self._tails.clear()
        self._in_window = len(self._committed)
        self.start_s = max(self.start_s, until_s)
        return Heard(tuple(committed), ())

    def _commit(self, count: int) -> list[Word]:
        """The first `count` words of the newest tail become final, with ascending times."""
        if not count:
            return []
        final = []
        for word in self._tails[-1][:count]:
            earliest_s = self._committed[-1].end if self._committed else 0.0
            begin_s = _at_least(word.start, earliest_s)
            final.append(msgspec.structs.replace(word, start=begin_s, end=_at_least(word.end, begin_s)))
            self._committed.append(final[-1])
        self._tails = [tail[count:] for tail in self._tails]
        return final

    def _roll(self, until_s: float) -> list[Word]:
        """Let go of audio, if there is much of it; of words too, if none could be made certain in all that time."""
        if until_s - self.start_s <= self._options.window_s:
            return []
        inside = self._committed[self._in_window :]
        if inside:
            sentences = [word for word in inside if word.word.rstrip().endswith(_SENTENCE_END)]
            self._start_at(min((sentences or inside)[-1].end, until_s))
        latest_start_s = until_s - self._options.longest_window_s
        if self.start_s > latest_start_s + _NEAR_S:
            return []
        # Half of it goes, so that the next one is not due at once.
        start_s = until_s - self._options.longest_window_s / 2
        forced = self._commit(sum(1 for word in self._tails[-1] if word.end <= start_s))
        self._tails = self._tails[-1:]
        self._start_at(start_s)
        return forced

    def _start_at(self, start_s: float) -> None:
        self.start_s = max(self.start_s, start_s)
        while self._in_window < len(self._committed) and self._committed[self._in_window].end <= self.start_s:
            self._in_window += 1

    def _overlap(self, said: Sequence[Word]) -> int:
        """How many words of a hypothesis stand for what is committed already, however it spells them now.

        Where its beginning is most like the committed words of the window, and of equals where the times fit best.
        """
        known = self._committed[self._in_window :]
        if not known or not said:
            return 0
        keys = [_key(word) for word in said]
        distances = list(range(len(said) + 1))
        for word in known:
            key, diagonal, distances[0] = _key(word), distances[0], distances[0] + 1
            for place, other in enumerate(keys, 1):
                diagonal, distances[place] = (
                    distances[place],
                    min(distances[place] + 1, distances[place - 1] + 1, diagonal + (key != other)),
                )
        border_s = known[-1].end

        def badness(count: int) -> tuple[int, float]:
            begins_s = said[count].start if count < len(said) else said[-1].end
            return distances[count], abs(_at_least(begins_s, 0.0) - border_s)

        return min(range(len(said) + 1), key=badness)


def _agreed(tails: Sequence[Sequence[Word]]) -> int:
    """How many words all have alike from the first on."""
    count = 0
    for words in zip(*tails, strict=False):
        if len({_key(word) for word in words}) > 1:
            break
        count += 1
    return count


def _key(word: Word) -> str:
    """The word as it sounds: case and punctuation change as more is heard."""
    return "".join(filter(str.isalnum, word.word.casefold())) or word.word.strip()


def _at_least(time_s: float, earliest_s: float) -> float:
    return max(time_s, earliest_s) if math.isfinite(time_s) else earliest_s
