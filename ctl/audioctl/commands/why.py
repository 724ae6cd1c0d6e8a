"""`audioctl why`: how a model came to be where it is, and what it would take to be ready now.

Only shows; the daemon remembers and judges.
"""

from __future__ import annotations

import argparse
import time

from audioctl.client import Client, decode
from audioctl.output import STATE_COLOURS, Cell, Column, Output, clean, duration
from audioproto.control import Chapter, GetStory, Story

SUMMARY = "tell why a model is where it is, and what it lacks to be ready"
EXAMPLES = (
    ("audioctl why whisper-base", "its latest moves, with times and reasons"),
    ("audioctl why tts-1 --all", "all that the daemon remembers of the model behind an alias"),
    ("audioctl --json why hibari | jq '.outlook[]'", "for scripts"),
)

COLUMNS = (Column("SINCE"), Column("STATE"), Column("FOR", right=True), Column("BECAUSE", least=20))

SHOWN = 12
"""Chapters, where not all are asked for."""

_RECENT_S = 12 * 3600
"""What is longer ago is shown with its day."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name or alias of a model, as in `audioctl models`")
    parser.add_argument("--all", action="store_true", help=f"show all that is remembered, not only {SHOWN} moves")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    body = client.call(GetStory(arguments.model))
    if out.json:
        out.document(body)
    else:
        story = decode(body, Story)
        for line in render(story, out, time.time(), SHOWN if not arguments.all else len(story.chapters)):
            out.line(line)
    return 0


def render(story: Story, out: Output, now: float, shown: int) -> list[str]:
    """The lines of the page. `now` is Unix time in seconds."""
    chapters = story.chapters[-shown:]
    last = chapters[-1]
    name = clean(story.model)
    state = out.paint(last.state, STATE_COLOURS.get(last.state, "yellow"))
    lines = [f"{name} has been {state} for {duration(last.lasted_s)}: {clean(last.reason) or 'no reason given'}", ""]
    lines += out.table(COLUMNS, [_row(chapter, now) for chapter in chapters])
    if len(chapters) < len(story.chapters):
        lines.append(out.paint(f"earlier: audioctl why {name} --all", "dim"))
    elif not story.whole:
        lines.append(out.paint(f"earlier: journalctl -u audiod AUDIOD_MODEL={name}", "dim"))
    lines += ["", "If a request came now:"]
    lines += [f"  {clean(step)}" for step in story.outlook]
    if story.estimate_s is None:
        lines.append("  it would be refused")
    elif story.estimate_s:
        lines.append(f"  it would be served in about {duration(story.estimate_s)}")
    else:
        lines.append("  it would be served at once")
    if story.hint:
        lines.append(f"  try: {clean(story.hint)}")
    return lines


def _row(chapter: Chapter, now: float) -> list[str | Cell]:
    return [
        _clock(chapter.at, now),
        Cell(chapter.state, STATE_COLOURS.get(chapter.state, "yellow")),
        f"{chapter.lasted_s * 1000:.0f}ms" if chapter.lasted_s < 0.9995 else duration(chapter.lasted_s),
        chapter.reason,
    ]


def _clock(at: float, now: float) -> str:
    """Local time, with the day where it is not plain which."""
    form = "%H:%M:%S" if now - at < _RECENT_S else "%m-%d %H:%M:%S"
    return time.strftime(form, time.localtime(at))
