"""Speech between the model that makes it and the client that takes it, so that a slow client does not hold the model.

One producer, one reader. Keeps bytes, and what is told in between, in order; knows neither models nor sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

import msgspec

from audiod.media.audio_memory import Held
from audioproto.errors import AudiodError

PATIENCE_S = 5.0
"""How long, in all, a model waits for one slow reader while the memory for audio is full."""


class Event(msgspec.Struct):
    """What is told between two pieces: of no size that counts."""


class Spool:
    """Bytes that are `held` until they have been read. While the memory is full it takes one piece at a time."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._pieces: deque[bytes | Event] = deque()
        self._is_lent = False
        """The reader has the first piece."""
        self._ended = False
        self._error: AudiodError | None = None
        self._changed = asyncio.Condition()
        self._patience_s = PATIENCE_S
        self.put_bytes = 0
        """Of all that was put in so far."""

    async def put(self, piece: bytes) -> None:
        """Append. Raises ConnectionAbortedError where the memory is full and the reader is too slow for that."""
        if not piece:
            return
        self.put_bytes += len(piece)
        async with self._changed:
            if self._pieces and not self._held.fits(len(piece)):
                await self._wait_for_the_reader()
            self._held.charge(len(piece))
            self._pieces.append(piece)
            self._changed.notify_all()

    async def tell(self, event: Event) -> None:
        """Append what is no audio; it comes to the reader in its turn."""
        async with self._changed:
            self._pieces.append(event)
            self._changed.notify_all()

    async def _wait_for_the_reader(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                await self._changed.wait_for(lambda: not self._pieces)
        except TimeoutError as error:
            raise ConnectionAbortedError("its client is slow, and the memory for audio is full") from error
        self._patience_s -= time.monotonic() - began

    async def end(self, error: AudiodError | None = None) -> None:
        """No more is coming; `error` is raised at the reader, after what came before it."""
        async with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    async def discard(self) -> None:
        """Drop what has not been read; it is at its end. Whoever fills it has been stopped before."""
        async with self._changed:
            while len(self._pieces) > self._is_lent:
                self._held.give_back(_size_bytes(self._pieces.pop()))
            self._ended = True
            self._changed.notify_all()

    async def read(self) -> bytes | Event:
        """The next piece or event, empty at the end; what the last call gave has now been read.

        Raises what it ended with.
        """
        async with self._changed:
            if self._is_lent:
                self._is_lent = False
                self._held.give_back(_size_bytes(self._pieces.popleft()))
                self._changed.notify_all()
            await self._changed.wait_for(lambda: self._pieces or self._ended)
            if self._pieces:
                self._is_lent = True
                return self._pieces[0]
        if self._error is not None:
            raise self._error
        return b""


def _size_bytes(piece: bytes | Event) -> int:
    return len(piece) if isinstance(piece, bytes) else 0
