"""The daemon's end of the worker protocol: frames and descriptors over a non-blocking socket on the event loop.

Knows neither engines nor residency; hands each message to its owner as it arrives.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from audioproto import framing
from audioproto.worker import Message

T = TypeVar("T")
_READ_BYTES = 256 * 1024


@dataclass(slots=True, eq=False)
class Outgoing:
    """A frame, or what is left of it to send; the descriptor goes with its first byte."""

    frame: bytes
    descriptor: int | None
    sent: asyncio.Future[None]
    awaited: bool = True
    begun: bool = False


class Channel(Generic[T]):
    """Speaks on `sock`, which it owns. `on_message` is called for each message, `on_close` once, at the end."""

    def __init__(
        self, sock: socket.socket, union: type[T], on_message: Callable[[T], None], on_close: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._decoder = framing.Decoder(union)
        self._on_message = on_message
        self._on_close = on_close
        self._outgoing: deque[Outgoing] = deque()
        self._loop = asyncio.get_running_loop()
        self.closed = False
        self._loop.add_reader(sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        try:
            messages = self._decoder.feed(data) if data else []
        except framing.FrameError:
            data, messages = b"", []
        for message in messages:
            self._on_message(message)
        if not data:
            self.close()

    async def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send one message, with a descriptor if given. Raises ConnectionError when the peer is gone.

        Cancelled before its first byte is on its way, nothing of it is sent; after that, all of it is.
        """
        outgoing = self.put(message, descriptor)
        try:
            await outgoing.sent
        except asyncio.CancelledError:
            self.withdraw(outgoing)
            raise

    def put(self, message: Message, descriptor: int | None = None) -> Outgoing:
        """Send one message, after those before it; await `sent`, or the descriptor may be closed too early."""
        outgoing = Outgoing(framing.encode(message), descriptor, self._loop.create_future())
        self._append(outgoing)
        return outgoing

    def withdraw(self, outgoing: Outgoing) -> bool:
        """Do not send it after all; False where its first byte is on its way already, and so the rest will be."""
        if outgoing.begun:
            return False
        if outgoing in self._outgoing:
            self._outgoing.remove(outgoing)
        return True

    def post(self, message: Message) -> None:
        """Send one message, after those before it, without waiting for that. To a peer that is gone: nothing."""
        self._append(Outgoing(framing.encode(message), None, self._loop.create_future(), awaited=False))

    def _append(self, outgoing: Outgoing) -> None:
        if self.closed:
            _fail(outgoing)
            return
        self._outgoing.append(outgoing)
        if len(self._outgoing) == 1:
            self._flush()

    def _flush(self) -> None:
        """Send what the socket takes, and the rest when it takes more."""
        while self._outgoing:
            first = self._outgoing[0]
            try:
                if first.begun or first.descriptor is None:
                    sent = self._sock.send(first.frame)
                else:
                    sent = socket.send_fds(self._sock, [first.frame], [first.descriptor])
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:  # it is read on to its end all the same: the peer's last words may be there
                self._drop()
                break
            first.begun = True
            first.frame = first.frame[sent:]
            if not first.frame:
                self._outgoing.popleft()
                if not first.sent.done():
                    first.sent.set_result(None)
        self._loop.remove_writer(self._sock)

    def _drop(self) -> None:
        while self._outgoing:
            _fail(self._outgoing.popleft())

    def close(self) -> None:
        """Close the socket; `on_close` is called the first time."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._drop()
        self._sock.close()
        self._on_close()


def _fail(outgoing: Outgoing) -> None:
    if outgoing.awaited and not outgoing.sent.done():
        outgoing.sent.set_exception(ConnectionResetError("the peer is gone"))
