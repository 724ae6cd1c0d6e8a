"""The audio of a Realtime session that is still needed: 16 kHz PCM by position, and turns moved out of it.

Counts what it keeps as held; decides nothing about what is kept.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque

from audiod.media.audio_memory import Held
from audiod.media.pool import Pcm
from audioproto.types import PCM_RATE_IN

_PAUSE_PIECES = 16
"""So many are moved in one go on the event loop: at most 1 MiB, about 0.3 ms."""


class Buffer:
    """Mono s16le at 16 kHz, as it comes. Positions are samples since the first."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._pieces: deque[bytes] = deque()
        self._start = 0
        """Of the first piece."""
        self.end = 0
        """The position behind the last sample that has come."""

    def append(self, pcm: bytes) -> None:
        """A piece of at most 64 KiB. It counts as held; whether there is room for it is to be asked before."""
        if pcm:
            self._held.charge(len(pcm))
            self._pieces.append(pcm)
            self.end += len(pcm) // 2

    def forget(self, before: int) -> None:
        """Drop the pieces that lie wholly before this sample."""
        while self._pieces and self._start + len(self._pieces[0]) // 2 <= before:
            self._pop(self.end)

    async def take(self, start: int, end: int) -> Pcm:
        """Move out what is from `start` to `end`, and drop what is before it; the caller closes what comes of it.

        Raises what Held.reserve raises, where the limit has been lowered meanwhile.
        """
        self.forget(start)
        pcm = Pcm(self._held, PCM_RATE_IN)
        try:
            os.set_blocking(pcm.fd, False)  # writing to memory never waits, whatever the flag says
            samples = pieces = 0
            while self._pieces and self._start < end:
                at = self._start
                wanted = self._pop(end)[max(0, start - at) * 2 :]
                samples += len(wanted) // 2
                pcm.reserve(samples)
                os.write(pcm.fd, wanted)
                pieces += 1
                if pieces % _PAUSE_PIECES == 0:
                    await asyncio.sleep(0)
            pcm.complete(samples)
        except BaseException:
            pcm.close()
            raise
        return pcm

    def copy(self, start: int, end: int) -> Pcm:
        """What is from `start` to `end`, half a minute at most; it stays here too. The caller closes what comes of it.

        Raises what Held.reserve raises.
        """
        pcm = Pcm(self._held, PCM_RATE_IN)
        try:
            os.set_blocking(pcm.fd, False)
            samples, at = 0, self._start
            for piece in self._pieces:
                if wanted := piece[max(0, start - at) * 2 : max(0, end - at) * 2]:
                    samples += len(wanted) // 2
                    pcm.reserve(samples)
                    os.write(pcm.fd, wanted)
                at += len(piece) // 2
            pcm.complete(samples)
        except BaseException:
            pcm.close()
            raise
        return pcm

    def split(self, at: int) -> Buffer:
        """Move what is before `at` into a buffer of its own, with the same positions."""
        before = Buffer(self._held)
        before._start = before.end = self._start
        while self._pieces and self._start < at:
            before.append(self._pop(at))
        return before

    def clear(self) -> None:
        """Drop everything."""
        self.forget(self.end)

    def _pop(self, end: int) -> bytes:
        """The first piece as far as it is before `end`; the rest of it stays."""
        piece = self._pieces.popleft()
        if rest := piece[(end - self._start) * 2 :]:
            piece = piece[: -len(rest)]
            self._pieces.appendleft(rest)
        self._start += len(piece) // 2
        self._held.give_back(len(piece))
        return piece
