"""The worker's end of the protocol: blocking frames, and descriptors, over one socket.

Used by the zygote loop and the worker loop; sends are safe from any thread, receives from one only.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from typing import Generic, TypeVar

from audioproto import framing
from audioproto.worker import Message

T = TypeVar("T")
_READ_BYTES = 256 * 1024


class Channel(Generic[T]):
    """Speaks `union` messages on `sock`, which it owns."""

    def __init__(self, sock: socket.socket, union: type[T]) -> None:
        self._sock = sock
        self._decoder = framing.Decoder(union)
        self._messages: deque[T] = deque()
        self._descriptors: deque[int] = deque()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        frame = framing.encode(message)
        with self._sending:
            self._sock.sendall(frame)

    def read(self) -> list[T]:
        """Block for bytes; returns the messages they complete, perhaps none. Raises EOFError when the peer is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, _READ_BYTES, 16)
        except ConnectionResetError as error:
            raise EOFError from error
        self._descriptors.extend(descriptors)
        if not data:
            raise EOFError
        return self._decoder.feed(data)

    def take_descriptor(self) -> int:
        """The descriptor that came with the message just read; they arrive in the order of their messages."""
        return self._descriptors.popleft()

    def close(self) -> None:
        for descriptor in self._descriptors:
            socket.close(descriptor)
        self._sock.close()
