"""Cues out of a transcript: what is shown together, from when, until when, on one or two lines.

Takes segments with or without times of words. Writes no files; that is render.py's.

Sources: Netflix Timed Text Style Guide (TTSG), General Requirements and Subtitle Timing Guidelines, English (USA),
Chinese (Simplified): partnerhelp.netflixstudios.com.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from audiod.subtitles import lines
from audiod.subtitles.characters import columns, is_cjk
from audiod.subtitles.lines import Unit
from audiod.subtitles.timing import time_characters
from audioproto.worker import Segment


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of cues. Times in seconds, widths in half-width columns, of which a CJK character takes two.

    Reading speed, gap and shortest time are kept where speech leaves the room; the words are never cut short for them.
    """

    columns: int = 42
    """Longest line (TTSG English I.4)."""
    cjk_columns: int = 32
    """Longest line of a cue with any CJK in it: 16 full-width characters (TTSG Chinese I.3, Korean I.3)."""
    characters_per_s: float = 20.0
    """Reading speed, spaces included (TTSG English I.14, adult programmes)."""
    cjk_characters_per_s: float = 9.0
    """The same for CJK characters (TTSG Chinese I.14)."""
    shortest_s: float = 5 / 6
    """TTSG General 1."""
    longest_s: float = 7.0
    """TTSG General 1."""
    gap_s: float = 1 / 12
    """Between cues: two frames of a film (TTSG General 3)."""
    closed_gap_s: float = 0.5
    """Shorter gaps than this only flicker, so the earlier cue stays (TTSG, Subtitle Timing Guidelines)."""
    longest_pause_s: float = 1.5
    """Over a longer pause no cue goes: it would show what is not said yet. Ours."""


DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: at most two lines. `estimated` if the time of any of its words is not the engine's own."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]
    estimated: bool = False


_A_CUE = 3.0
"""How bad another cue is, in the terms of lines.py: reading is easier in few."""
_SECOND_SENTENCE = 1.5
"""How bad a sentence's end in the middle of a cue is."""
_TOO_FAST = 6.0
"""How bad a cue is that would have to be read twice as fast as it ought to be."""
_TOO_SHORT = 8.0
"""How bad a cue is that is not shown at all; shorter ones than shortest_s, in proportion."""
_PAUSE_INSIDE = 8.0
"""How bad a second of silence within a cue is, beyond the usual."""
_FASTEST = 3.0
"""Faster than that beyond the reading speed is all the same."""
_USUAL_PAUSE_MS = 300
_PAUSE_ENDS_MS = 600
"""After such a pause it is no matter whether the sentence has ended."""


def make(segments: Sequence[Segment], duration_s: float, options: Options = DEFAULTS) -> list[Cue]:
    """The cues of a transcript of `duration_s` seconds of audio, with all of its text in order.

    They do not overlap, each is shown for a time, and none beyond the audio's end, unless that is nearer than one
    millisecond a cue. Takes one to two seconds for an hour of speech: not for an event loop.
    """
    duration_ms = max(0, int(duration_s * 1000))
    timed = time_characters(segments, duration_ms)
    units = lines.cut(timed, options.columns, options.cjk_columns)
    if not units:
        return []
    groups = [units[first:last] for first, last in pairwise(_borders(units, duration_ms, options))]
    times = _times(groups, duration_ms, options)
    return [
        Cue(start_ms, end_ms, lines.arrange(group, _most_columns(group, options)), any(one.estimated for one in group))
        for group, (start_ms, end_ms) in zip(groups, times, strict=True)
    ]


def with_text(cue: Cue, text: str, options: Options = DEFAULTS) -> Cue:
    """The same cue in other words, as after a translation, on one line or two; too long ones if it must be.

    Raises ValueError where there is nothing to read in `text`.
    """
    said = Segment(0, cue.start_ms / 1000, cue.end_ms / 1000, text)
    units = lines.cut(time_characters([said], cue.end_ms), options.columns, options.cjk_columns)
    if not units:
        raise ValueError("a cue must have a text")
    return replace(cue, lines=lines.arrange(units, _most_columns(units, options)))


def _most_columns(units: Sequence[Unit], options: Options) -> int:
    return options.cjk_columns if any(unit.cjk for unit in units) else options.columns


class _Measured(NamedTuple):
    """A unit in the terms of the search; `ending` and `going_on` are the badness of a border behind it and of none."""

    start_ms: int
    end_ms: int
    space: int
    columns: int
    cjk: bool
    reading_ms: float
    ending: float
    going_on: float


def _measured(units: Sequence[Unit], options: Options) -> list[_Measured]:
    measured = []
    for unit, following in zip(units, [*units[1:], None], strict=True):
        ending = going_on = 0.0
        if following:
            pause_ms = following.start_ms - unit.end_ms
            ending = unit.badness * max(0.0, 1 - pause_ms / _PAUSE_ENDS_MS)
            going_on = _PAUSE_INSIDE * max(0, pause_ms - _USUAL_PAUSE_MS) / 1000
            going_on += _SECOND_SENTENCE * unit.ends_sentence
            if pause_ms > options.longest_pause_s * 1000:
                going_on = math.inf
        space, reading_ms = columns(unit.space), _reading_ms(unit, options)
        times = unit.start_ms, unit.end_ms
        measured.append(_Measured(*times, space, unit.columns, unit.cjk, reading_ms, ending, going_on))
    return measured


def _borders(units: Sequence[Unit], duration_ms: int, options: Options) -> list[int]:
    """Where cues begin, and the end: the least bad of all ways, found from each unit forwards."""
    measured = _measured(units, options)
    least = [0.0] + [math.inf] * len(units)
    begun = [0] * (len(units) + 1)
    for first in range(len(units)):
        for last, badness in _candidates(measured, first, duration_ms, options):
            if least[first] + badness < least[last]:
                least[last], begun[last] = least[first] + badness, first
    borders = [len(units)]
    while borders[-1]:
        borders.append(begun[borders[-1]])
    return borders[::-1]


def _candidates(
    units: Sequence[_Measured], first: int, duration_ms: int, options: Options
) -> Iterator[tuple[int, float]]:
    """The cues that may begin with unit `first`, each as the unit behind its end, and how bad it is."""
    start_ms = units[first].start_ms
    most_ms = start_ms + options.longest_s * 1000
    shortest_ms, gap_ms = options.shortest_s * 1000, options.gap_s * 1000
    reading_ms = inside = 0.0
    most = options.cjk_columns if units[first].cjk else options.columns
    line, used = 1, -units[first].space
    for last in range(first, len(units)):
        unit = units[last]
        if unit.cjk and most != options.cjk_columns:
            most = options.cjk_columns
            line, used = _filled(units[first:last], most)
        used += unit.space + unit.columns
        if used > most:
            line, used = line + 1, unit.columns
        if last > first and (line > lines.LINES or used > most or unit.end_ms > most_ms or inside == math.inf):
            return
        reading_ms += unit.reading_ms
        latest_ms = units[last + 1].start_ms - gap_ms if last + 1 < len(units) else duration_ms
        shown_ms = max(1.0, min(max(unit.end_ms - start_ms, reading_ms, shortest_ms), latest_ms - start_ms))
        haste = _TOO_FAST * min(reading_ms / shown_ms - 1, _FASTEST) if shown_ms < reading_ms else 0.0
        if shown_ms < shortest_ms:
            haste += _TOO_SHORT * (1 - shown_ms / shortest_ms)
        yield last + 1, _A_CUE + inside + unit.ending + haste
        inside += unit.going_on


def _filled(units: Sequence[_Measured], most: int) -> tuple[int, int]:
    """The line and its used columns after `units`, as many on each line as go."""
    line, used = 1, -units[0].space
    for unit in units:
        used += unit.space + unit.columns
        if used > most:
            line, used = line + 1, unit.columns
        if used > most:
            return lines.LINES + 1, used
    return line, used


def _reading_ms(unit: Unit, options: Options) -> float:
    cjk = sum(map(is_cjk, unit.text)) if unit.cjk else 0
    others = len(unit.text) - cjk + len(unit.space)
    return 1000 * (cjk / options.cjk_characters_per_s + others / options.characters_per_s)


def _times(groups: Sequence[Sequence[Unit]], duration_ms: int, options: Options) -> list[tuple[int, int]]:
    """From when until when each is shown: from its first word on, until it is said and read, if there is room."""
    count = len(groups)
    duration_ms = max(duration_ms, count)
    longest_ms, shortest_ms = round(options.longest_s * 1000), round(options.shortest_s * 1000)
    gap_ms = round(options.gap_s * 1000)
    # Each gets its shortest time and a gap, or what there is; where words come too close, later cues wait.
    share_ms = min(shortest_ms + gap_ms, duration_ms // count)
    gap_ms = min(gap_ms, share_ms // 2)
    starts: list[int] = []
    for group in groups:
        starts.append(max(group[0].start_ms, starts[-1] + share_ms if starts else 0))
    starts = [
        min(start_ms, duration_ms + gap_ms - (count - number) * share_ms) for number, start_ms in enumerate(starts)
    ]
    times = []
    for number, (group, start_ms) in enumerate(zip(groups, starts, strict=True)):
        latest_ms = starts[number + 1] - gap_ms if number + 1 < count else duration_ms
        needed_ms = max(shortest_ms, round(sum(_reading_ms(unit, options) for unit in group)))
        end_ms = max(group[-1].end_ms, start_ms + needed_ms)
        if latest_ms - end_ms < options.closed_gap_s * 1000 and number + 1 < count:
            end_ms = latest_ms
        times.append((start_ms, min(end_ms, latest_ms, max(start_ms + longest_ms, start_ms + 1))))
    return times
