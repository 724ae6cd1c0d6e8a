"""What a person or a script gets to see: lines, tables, JSON and errors, and how wide and how coloured they are.

Fetches nothing and decides nothing. Only what a command was asked for goes to standard output; progress, warnings and
errors go to standard error.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import msgspec

from audioproto.errors import AudiodError
from audioproto.types import Residency

ELLIPSIS = "…"
DEFAULT_WIDTH = 80
DEFAULT_HEIGHT = 24

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

STATE_COLOURS = {
    Residency.READY: "green",
    Residency.FAILED: "red",
    Residency.PARKED: "cyan",
    Residency.UNLOADED: "dim",
}
"""Of the states in which a model stays; all others are under way, and yellow."""

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, direction overrides, lone surrogates: a worker's log or a model's name must not
move the cursor or recolour the terminal."""

_COLOURING = re.compile("\x1b\\[[0-9;:]*m")
"""ECMA-48 SGR: engine libraries colour their logs."""


class Column(NamedTuple):
    """Head of a table's column. `least` is the width it may be cut to, where the table is too wide; 0 is never cut."""

    title: str
    right: bool = False
    least: int = 0


class Cell(NamedTuple):
    """Text with a colour; a plain string in a table has none."""

    text: str
    colour: str = ""


class Output:
    """One command's standard output and standard error. `json` may be set until the first thing is printed."""

    def __init__(self, stdout: TextIO, stderr: TextIO, *, environment: Mapping[str, str], json: bool = False) -> None:
        self.json = json
        self._stdout = stdout
        self._stderr = stderr
        self.terminal = stdout.isatty()
        # https://no-color.org: present and not empty.
        self.coloured = self.terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        self._environment = environment
        self.width = DEFAULT_WIDTH
        self.height = DEFAULT_HEIGHT
        self.measure()
        self.cuts = self.terminal or "COLUMNS" in environment
        """Whether a table too wide loses text; not where a pipe reads it, for grep wants whole names."""

    def measure(self) -> None:
        """Take the terminal's size as it is now."""
        if self.terminal:
            with contextlib.suppress(OSError):
                size = os.get_terminal_size(self._stdout.fileno())
                self.width, self.height = size.columns or DEFAULT_WIDTH, size.lines or DEFAULT_HEIGHT
        columns = self._environment.get("COLUMNS", "")
        if columns.isdecimal() and int(columns) > 0:
            self.width = int(columns)

    def line(self, text: str = "") -> None:
        """One line of the answer, shown at once."""
        print(text, file=self._stdout, flush=True)

    def note(self, text: str) -> None:
        """One line about the work under way."""
        print(text, file=self._stderr, flush=True)

    def document(self, value: bytes | Any) -> None:
        """A whole JSON answer, indented; bytes are taken as JSON already, so that fields we do not know survive."""
        encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
        self.line(msgspec.json.format(encoded, indent=2).decode())

    def json_line(self, value: bytes | Any) -> None:
        """One line of a JSON Lines answer."""
        encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
        self.line(encoded.decode())

    def redraw(self, lines: Sequence[str]) -> None:
        """Show `lines` in place of what stood there, as many as there is room for; without a terminal, below it."""
        if not self.terminal:
            self.line("\n".join((*lines, "")))
            return
        room = self.height - 1  # the cursor's line, else it scrolls
        if len(lines) > room:
            lines = (*lines[: max(0, room - 1)], f"({len(lines) - room + 1} more lines)")
        # Home, each line cleared to its end, then the rest of the screen: clearing first would flicker.
        body = "".join(f"{line}\x1b[K\n" for line in lines)
        print(f"\x1b[H{body}\x1b[J", end="", file=self._stdout, flush=True)

    def error(self, error: AudiodError, subject: str = "") -> None:
        """An error with the next command to type. `subject` is the model or file it is about."""
        if self.json:
            document: dict[str, Any] = {"error": error.body()}
            if subject:
                document["subject"] = clean(subject)
            print(msgspec.json.encode(document).decode(), file=self._stderr, flush=True)
            return
        self.note(f"audioctl: {clean(naming(subject, error.message))}")
        if error.retry_after_s is not None:
            self.note(f"  try again in {duration(error.retry_after_s)}")
        if error.hint:
            self.note(f"  try: {clean(error.hint)}")

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour of _COLOURS, where colours are on."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.coloured and colour else text

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> list[str]:
        """The lines of a table: first the gaps give way, then the widest columns that may be cut, until it fits."""
        cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        cells = [[Cell(clean(text), colour) for text, colour in row] for row in cells]
        titles = [Cell(column.title, "bold") for column in columns]
        widths = [max(display_width(row[index].text) for row in (titles, *cells)) for index in range(len(columns))]
        gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= self.width else " "
        if self.cuts:
            _narrow(widths, columns, self.width - len(gap) * (len(widths) - 1))
        lines = []
        for row in (titles, *cells):
            shown = []
            for column, width, (text, colour) in zip(columns, widths, row, strict=True):
                text = fit(text, width)
                space = " " * (width - display_width(text))
                text = self.paint(text, colour)
                shown.append(space + text if column.right else text + space)
            lines.append(gap.join(shown).rstrip())
        return lines


def _narrow(widths: list[int], columns: Sequence[Column], room: int) -> None:
    while sum(widths) > room:
        spare = [index for index, column in enumerate(columns) if column.least and widths[index] > column.least]
        if not spare:
            return
        widths[max(spare, key=widths.__getitem__)] -= 1


def clean(text: str) -> str:
    """`text` on one line, without colours, and with all else that could steer a terminal written as an escape."""
    plain = _COLOURING.sub("", text.expandtabs(4))
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), plain)


def naming(subject: str, message: str) -> str:
    """`message` with `subject: ` before it, unless it is empty or named in the message already."""
    words = {word.strip("'\",.:;()") for word in message.split()}
    return f"{subject}: {message}" if subject and subject not in words else message


def display_width(text: str) -> int:
    """Terminal cells that `text` takes: two for wide and fullwidth characters (Unicode annex 11), none for marks."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(character) in ("Mn", "Me", "Cf") else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def fit(text: str, width: int) -> str:
    """`text`, cut to at most `width` cells with an ellipsis where it is longer."""
    if display_width(text) <= width:
        return text
    kept = ""
    used = 1
    for character in text:
        used += display_width(character)
        if used > width:
            break
        kept += character
    return kept + ELLIPSIS if width > 0 else ""


def size(size_bytes: int) -> str:
    """Bytes to three figures in IEC units, as the daemon writes them: `190 MiB`, at most 9 cells."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 99.5 or unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def duration(seconds: float) -> str:
    """A time to two units: `0.4s`, `12s`, `4m05s`, `3h20m`, `2d04h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02}m"
    days = whole // 86400
    return f"{days}d{whole // 3600 % 24:02}h" if days < 100 else f"{days}d"


def bar(part: int, whole: int, cells: int = 20) -> str:
    """`[#####---------------]`: ASCII, for it must show in every locale. Full where `part` is over `whole`."""
    filled = min(cells, round(cells * part / whole)) if whole > 0 else 0
    return f"[{'#' * filled}{'-' * (cells - filled)}]"
