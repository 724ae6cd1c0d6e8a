"""Messages survive however the socket cuts them, and nonsense is told from them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioproto.framing import MAX_FRAME_BYTES, Decoder, FrameError, encode
from audioproto.worker import AudioChunk, Done, FromWorker, Segment

MESSAGES = [Segment(1, 0.0, 1.0, "你好"), AudioChunk(2, bytes(1000)), Done(1, "zh", 0.5)]


def decoder() -> Decoder[FromWorker]:
    return Decoder(FromWorker)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 400), max_size=50))
def test_messages_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    data = b"".join(map(encode, MESSAGES))
    reading, received = decoder(), []
    for cut in [*cuts, len(data)]:
        received += reading.feed(data[:cut])
        data = data[cut:]
    assert received == MESSAGES


@pytest.mark.parametrize(
    "data",
    [struct.pack("<I", MAX_FRAME_BYTES + 1), struct.pack("<I", 3) + b"\xc1\xc1\xc1", struct.pack("<I", 1) + b"\x01"],
    ids=["a frame over the limit", "no msgpack", "no message"],
)
def test_nonsense_is_an_error_at_once(data: bytes) -> None:
    with pytest.raises(FrameError):
        decoder().feed(data)


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(FrameError):
        encode(AudioChunk(1, bytes(MAX_FRAME_BYTES)))
