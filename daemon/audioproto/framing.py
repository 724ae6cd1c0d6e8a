"""Bytes to messages and back: a 4-byte little-endian length, then one msgpack message.

Touches no socket; both ends feed it what they read. The length is bounded so that a broken peer cannot make us
allocate without limit.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

MAX_FRAME_BYTES = 8 * 1024 * 1024
_HEADER = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()

T = TypeVar("T")


class FrameError(Exception):
    """The peer does not speak this protocol: oversized frame or undecodable message."""


def encode(message: msgspec.Struct) -> bytes:
    """One message as a complete frame."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _HEADER.pack(len(body)) + body


class Decoder(Generic[T]):
    """Collects bytes and yields the whole messages among them, of the union type given."""

    def __init__(self, union: type[T]) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """Messages completed by `data`, in order. Raises FrameError."""
        self._pending += data
        messages: list[T] = []
        while len(self._pending) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(self._pending)
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            end = _HEADER.size + length
            if len(self._pending) < end:
                break
            body = bytes(self._pending[_HEADER.size : end])
            del self._pending[:end]
            try:
                messages.append(self._decoder.decode(body))
            except msgspec.MsgspecError as error:
                raise FrameError(str(error)) from error
        return messages
