"""The terminal while a command keeps redrawing it: another screen, no cursor, keys as they are pressed, its size.

Gives it back as it was, however the command ends: leave the context manager. Knows nothing of what is shown.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

# Private modes of DEC and xterm, which every terminal of today and the Linux console knows or ignores: another screen,
# no cursor, and what is too wide for a narrow window is cut off and not wrapped.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"

REDRAW = "\x0c"
"""Ctrl-L, or what makes it necessary: another size, or another program having had the terminal."""

_WAKING = (signal.SIGWINCH, signal.SIGTSTP)
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal has asked the command to end; `status` is what a shell reports for it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


class Screen:
    """One terminal, from `entered` on. `keys` is where keys come from, if that is a terminal too."""

    def __init__(self, terminal: TextIO, keys: TextIO | None) -> None:
        self._terminal = terminal
        self._keys = keys
        self._before: list[Any] | None = None
        self._woken, self._waker = socket.socketpair()
        self._stopped = False

    def wait(self, seconds: float) -> str:
        """The key that is pressed within so many seconds; empty where none is. REDRAW as soon as that is called for."""
        watched: list[Any] = [self._woken]
        if self._keys is not None:
            watched.append(self._keys)
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._woken in ready:
            self._woken.recv(64)
            if self._stopped:
                self._stop()
            return REDRAW
        if self._keys is not None and self._keys in ready:
            pressed = os.read(self._keys.fileno(), 64)
            if not pressed:  # the terminal has gone
                raise Ended(signal.SIGHUP)
            return pressed.decode(errors="replace")
        return ""

    def _enter(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._terminal.write(_ENTER)
        self._terminal.flush()

    def _leave(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may have gone
            self._terminal.write(_LEAVE)
            self._terminal.flush()
        if self._keys is not None and self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _stop(self) -> None:
        """Ctrl-Z: the shell gets its terminal until we are told to go on."""
        self._stopped = False
        self._leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._enter()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number in _ENDING:
            raise Ended(number)
        self._stopped = self._stopped or number == signal.SIGTSTP

    @contextlib.contextmanager
    def entered(self) -> Iterator[Callable[[float], str]]:
        """The terminal is ours while inside; yields `wait`. Ctrl-C raises KeyboardInterrupt, a signal to end Ended."""
        before = {number: signal.signal(number, self._on_signal) for number in (*_WAKING, *_ENDING)}
        self._waker.setblocking(False)
        woken = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        try:
            self._enter()
            yield self.wait
        finally:
            self._leave()
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._woken.close()
            self._waker.close()


def keys() -> TextIO | None:
    """Standard input, where keys can be read from it."""
    return sys.stdin if sys.stdin is not None and sys.stdin.isatty() else None
