"""A terminal for tests: a program runs on a pseudo-terminal of its own, and what its screen shows can be looked at.

Understands the few control sequences that audioctl sends, and refuses any other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SEQUENCE = re.compile(r"\x1b\[(\?)?(\d*)(?:;\d+)*([A-Za-z])")

LIMIT_S = 60.0


class Terminal:
    """`program` is its process. Two screens, of which the alternate one is forgotten when it is left."""

    def __init__(self, command: list[str], environment: dict[str, str], columns: int, rows: int) -> None:
        self._leader, self._follower = pty.openpty()
        self.columns, self.rows = columns, rows
        self.alternate = False
        self.cursor_shown = True
        self.wraps = True
        self.overflown = False
        """A line was longer than the screen is wide, and would have been wrapped."""
        self.coloured = False
        self._screens = {False: self._blank(), True: self._blank()}
        self._at = {False: [0, 0], True: [0, 0]}
        self._rest = ""
        termios.tcsetwinsize(self._leader, (rows, columns))
        self.settings = termios.tcgetattr(self._follower)

        def own_the_terminal() -> None:
            os.setsid()
            fcntl.ioctl(self._follower, termios.TIOCSCTTY, 0)

        self.program = subprocess.Popen(
            command,
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
            env=environment,
            preexec_fn=own_the_terminal,
        )

    # --- what a person does -----------------------------------------------------------------------------------------

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """As a window's border is dragged: the program is told by SIGWINCH."""
        self.columns, self.rows = columns, rows
        self._screens = {False: self._blank(), True: self._blank()}
        self._at = {False: [0, 0], True: [0, 0]}
        termios.tcsetwinsize(self._leader, (rows, columns))

    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._screens[self.alternate]]

    def wait_for(self, shown: str | Callable[[], bool], what: str = "") -> None:
        """Until the screen has that text, or that is so."""
        seen = shown if callable(shown) else lambda: any(shown in line for line in self.lines())
        ends_at = time.monotonic() + LIMIT_S
        while not seen():
            ready, _, _ = select.select([self._leader], [], [], max(0.0, ends_at - time.monotonic()))
            assert ready, f"{what or shown} did not come; the screen shows:\n" + "\n".join(self.lines())
            if not self._read():
                assert seen(), f"the program ended before {what or shown}:\n" + "\n".join(self.lines())

    def wait_for_end(self) -> int:
        """The exit status, with all that was still written taken in."""
        while self.program.poll() is None or select.select([self._leader], [], [], 0)[0]:
            if select.select([self._leader], [], [], 0.05)[0] and not self._read():
                break
        return self.program.wait(LIMIT_S)

    def settings_now(self) -> list[Any]:
        return termios.tcgetattr(self._follower)

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._leader)
        os.close(self._follower)

    # --- what the terminal does -------------------------------------------------------------------------------------

    def _blank(self) -> list[list[str]]:
        return [[" "] * self.columns for _ in range(self.rows)]

    def _read(self) -> bool:
        try:
            received = os.read(self._leader, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        self._take(self._rest + received.decode(errors="replace"))
        return bool(received)

    def _take(self, text: str) -> None:
        position = 0
        while position < len(text):
            if text[position] == "\x1b":
                match = _SEQUENCE.match(text, position)
                if match is None:
                    if len(text) - position < 12:
                        break  # the rest of it is on its way
                    raise AssertionError(f"a sequence that no terminal need know: {text[position : position + 12]!r}")
                self._obey(match[1] == "?", match[2], match[3])
                position = match.end()
            else:
                self._put(text[position])
                position += 1
        self._rest = text[position:]

    def _obey(self, private: bool, number: str, letter: str) -> None:
        screen, at = self._screens[self.alternate], self._at[self.alternate]
        match private, number, letter:
            case True, "1049", "h" | "l":
                self.alternate = letter == "h"
                if self.alternate:
                    self._screens[True], self._at[True] = self._blank(), [0, 0]
            case True, "25", _:
                self.cursor_shown = letter == "h"
            case True, "7", _:
                self.wraps = letter == "h"
            case False, "", "H":
                at[:] = [0, 0]
            case False, "", "K":
                screen[at[0]][at[1] :] = [" "] * (self.columns - at[1])
            case False, "", "J":
                for row in range(at[0] + 1, self.rows):
                    screen[row] = [" "] * self.columns
                screen[at[0]][at[1] :] = [" "] * (self.columns - at[1])
            case False, "2", "J":
                screen[:] = self._blank()
            case False, _, "m":
                self.coloured = True
            case _:
                raise AssertionError(f"an unknown sequence: {private=} {number=} {letter=}")

    def _put(self, character: str) -> None:
        screen, at = self._screens[self.alternate], self._at[self.alternate]
        if character == "\r":
            at[1] = 0
        elif character == "\n":
            if at[0] == self.rows - 1:
                screen.append([" "] * self.columns)
                del screen[0]
            else:
                at[0] += 1
        elif at[1] >= self.columns:
            self.overflown = self.overflown or self.wraps
        else:
            screen[at[0]][at[1]] = character
            at[1] += 1


@contextlib.contextmanager
def terminal(command: list[str], environment: dict[str, str], columns: int = 80, rows: int = 24) -> Iterator[Terminal]:
    """`command` on a terminal of that size."""
    opened = Terminal(command, environment, columns, rows)
    try:
        yield opened
    finally:
        opened.close()


def state_of(pid: int) -> str:
    """The letter that ps shows: S for sleeping, T for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
