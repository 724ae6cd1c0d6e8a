"""The daemon's end of the worker protocol: frames and descriptors over a non-blocking socket on the event loop.

Knows neither engines nor residency; hands each message to its owner as it arrives.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from audioproto import framing
from audioproto.worker import Message

T = TypeVar("T")
_READ_BYTES = 256 * 1024


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
        self._sending = asyncio.Lock()
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
        """Send one message, with a descriptor if given. Raises ConnectionError when the peer is gone."""
        frame = framing.encode(message)
        async with self._sending:
            if self.closed:
                raise ConnectionResetError("the peer is gone")
            if descriptor is not None:
                sent = 0
                while not sent:
                    try:
                        sent = socket.send_fds(self._sock, [frame], [descriptor])
                    except BlockingIOError:
                        await self._writable()
                frame = frame[sent:]
            if frame:
                await self._loop.sock_sendall(self._sock, frame)

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        self._loop.add_writer(self._sock, ready.set_result, None)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._sock)

    def close(self) -> None:
        """Close the socket; `on_close` is called the first time."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._on_close()
