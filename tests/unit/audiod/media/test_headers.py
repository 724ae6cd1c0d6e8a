"""What WAV and mp3 headers claim: read right, and never believed to be there."""

from __future__ import annotations

import io
import struct
import wave
from functools import partial

import pytest

from audiod.media import riff, xing
from sounds import ENCODINGS, muxed, sweep, wav


def read_at(data: bytes, count: int, offset: int) -> bytes:
    return data[offset : offset + count]


def header(data: bytes) -> riff.WaveHeader | None:
    return riff.read_header(partial(read_at, data), len(data))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_wav_says_how_long_it_is(encoding: str) -> None:
    found = header(wav(sweep(0.5, 8_000), 8_000, encoding, channels=2))
    assert found is not None
    assert found.claimed_s == found.found_s == 0.5
    assert not found.is_truncated
    assert not found.is_plain(8_000)


def test_plain_means_mono_16_bit_at_the_rate() -> None:
    found = header(wav(sweep(0.5, 16_000), 16_000))
    assert found is not None
    assert found.is_plain(16_000)
    assert not found.is_plain(8_000)


def test_a_wrong_byte_rate_is_not_believed() -> None:
    data = bytearray(wav(sweep(0.5, 16_000), 16_000))
    data[28:32] = struct.pack("<I", 1)
    found = header(bytes(data))
    assert found is not None
    assert found.claimed_s == 0.5


def test_chunks_before_the_samples_are_passed_over_with_their_padding() -> None:
    odd = struct.pack("<4sI", b"bext", 7) + bytes(8)
    found = header(wav(sweep(0.5, 16_000), 16_000, before_data=odd))
    assert found is not None
    assert found.claimed_s == 0.5


def test_a_long_wav_keeps_its_length_elsewhere() -> None:
    """RF64: the sizes that do not fit 32 bits are in a ds64 chunk."""
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 0, 16_000, 0, 0)
    plain = wav(sweep(0.5, 16_000), 16_000, claimed_bytes=0xFFFF_FFFF)
    found = header(b"RF64" + plain[4:12] + sizes + plain[12:])
    assert found is not None
    assert found.claimed_bytes == 16_000


def test_a_big_endian_wav_is_read() -> None:
    layout = struct.pack(">4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    found = header(b"RIFX" + bytes(4) + b"WAVE" + layout + struct.pack(">4sI", b"data", 4) + bytes(4))
    assert found is not None
    assert (found.rate_hz, found.claimed_bytes, found.is_plain(16_000)) == (16_000, 4, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\0\0\0\0AVI LIST",
        wav(sweep(0.1, 8_000), 8_000)[:40],
        b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd",
        b"RIFF\0\0\0\0WAVE" + b"JUNK\0\0\0\0" * 1_000_000,
    ],
    ids=["empty", "four bytes", "no chunk", "a film", "cut", "samples without a format", "endless chunks"],
)
def test_what_is_no_whole_wav_header_is_none(data: bytes) -> None:
    assert header(data) is None


def test_the_header_of_a_stream_is_read_by_python_and_by_us() -> None:
    streamed = riff.streaming_header() + bytes(4_800)
    with wave.open(io.BytesIO(streamed)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24_000, 1, 2)
    found = header(streamed)
    assert found is not None
    assert (found.claimed_bytes, found.found_s, found.data_offset) == (None, 0.1, 44)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_an_mp3_with_a_tag_says_how_long_it_is(rate: int, layout: str) -> None:
    data = muxed("mp3", "libmp3lame", sweep(2.0, rate), rate, layout=layout, metadata={"title": "A" * 5_000})
    assert xing.duration_s(partial(read_at, data)) == pytest.approx(2.0, abs=0.2)
    assert xing.duration_s(partial(read_at, data[:-500])) == pytest.approx(2.0, abs=0.2)


def test_an_mp3_without_a_tag_says_nothing() -> None:
    data = muxed("mp3", "libmp3lame", sweep(1.0, 16_000), 16_000, options={"write_xing": "0"})
    assert xing.duration_s(partial(read_at, data)) is None


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xfb", b"ID3\3\0\0\x7f\x7f\x7f\x7f", b"\xff\xfb\x90\0" * 2_000])
def test_what_is_no_mp3_says_nothing(data: bytes) -> None:
    assert xing.duration_s(partial(read_at, data)) is None
