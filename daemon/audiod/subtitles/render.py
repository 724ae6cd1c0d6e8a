"""Cues as SubRip (SRT) and WebVTT. Changes nothing but what would not be text there."""

from __future__ import annotations

import re
from collections.abc import Iterable

from audiod.subtitles.cues import Cue

_ARROW = re.compile("-{2,}>")


def srt(cues: Iterable[Cue]) -> str:
    """SubRip, cues numbered from 1. It knows no escapes: an arrow, which marks a line of times, becomes a short one."""
    return "".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_ARROW.sub('->', _text(cue))}\n\n"
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT (W3C, section 4.2.2): what would begin a tag or an escape is escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_escaped(_text(cue))}\n\n" for cue in cues
    )


def _text(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int, point: str) -> str:
    """HH:MM:SS.mmm, with `point` before the milliseconds."""
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
