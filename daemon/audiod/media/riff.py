"""WAV headers: reads what one claims, without trusting it, and writes the one that a streamed answer begins with.

Never reads the samples. Sources: Microsoft's RIFF specification (1991) and its WAVEFORMATEXTENSIBLE, EBU Tech 3306
(RF64, BW64).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from audioproto.types import PCM_RATE_OUT

ReadAt = Callable[[int, int], bytes]
"""(count, offset) to at most `count` bytes, as os.pread."""

UNKNOWN_BYTES = 0x7FFF_F000
"""A data size from here on means "until the end": sox writes 0x7FFFF000, arecord 0x80000000, others 0x7FFFFFFF or
0xFFFFFFFF, when they write to a pipe. So does 0, where bytes follow."""

_PCM, _FLOAT, _ALAW, _ULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_SAMPLES_IN_BLOCKS = {_PCM, _FLOAT, _ALAW, _ULAW}
_MAX_CHUNKS = 64
"""More chunks than that before the samples are no recorder's work."""


@dataclass(frozen=True, slots=True)
class WaveHeader:
    """What a WAV header says. `claimed_bytes` is None where it says no length; `found_bytes` is what really follows."""

    encoding: int
    channels: int
    rate_hz: int
    bits: int
    bytes_per_s: int
    data_offset: int
    claimed_bytes: int | None
    found_bytes: int
    big_endian: bool

    @property
    def claimed_s(self) -> float | None:
        """Seconds of audio that the header promises; None where it does not, or says no usable rate."""
        if self.claimed_bytes is None or self.bytes_per_s == 0:
            return None
        return self.claimed_bytes / self.bytes_per_s

    @property
    def found_s(self) -> float:
        return self.found_bytes / self.bytes_per_s if self.bytes_per_s else 0.0

    @property
    def is_truncated(self) -> bool:
        return self.claimed_bytes is not None and self.claimed_bytes > self.found_bytes

    def is_plain(self, rate_hz: int) -> bool:
        """Whether the samples are mono s16le at `rate_hz` already."""
        kind = (self.encoding, self.channels, self.rate_hz, self.bits, self.big_endian)
        return kind == (_PCM, 1, rate_hz, 16, False)


def read_header(read_at: ReadAt, size_bytes: int) -> WaveHeader | None:
    """The header of a WAV (RIFF, RIFX, RF64, BW64) of `size_bytes` in all; None for anything else, however broken."""
    form = read_at(12, 0)
    if form[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or form[8:12] != b"WAVE":
        return None
    order = ">" if form[:4] == b"RIFX" else "<"
    long_bytes: int | None = None
    layout: tuple[int, int, int, int, int] | None = None
    offset = 12
    for _ in range(_MAX_CHUNKS):
        head = read_at(8, offset)
        if len(head) < 8:
            return None
        name, length = head[:4], struct.unpack(order + "I", head[4:])[0]
        offset += 8
        if name == b"ds64" and len(sizes := read_at(16, offset)) == 16:
            long_bytes = struct.unpack("<8xQ", sizes)[0]
        elif name == b"fmt ":
            layout = _layout(read_at(min(length, 40), offset), order)
        elif name == b"data":
            if layout is None:
                return None
            encoding, channels, rate_hz, bytes_per_s, bits = layout
            if length == 0xFFFF_FFFF and long_bytes is not None:
                claimed = long_bytes or None
            else:
                claimed = None if length == 0 or length >= UNKNOWN_BYTES else length
            found = max(0, size_bytes - offset)
            big = order == ">"
            return WaveHeader(encoding, channels, rate_hz, bits, bytes_per_s, offset, claimed, found, big)
        offset += length + length % 2
    return None


def _layout(chunk: bytes, order: str) -> tuple[int, int, int, int, int] | None:
    """Encoding, channels, rate in Hz, bytes a second, bits a sample of a `fmt ` chunk; None where it is cut short."""
    if len(chunk) < 16:
        return None
    encoding, channels, rate_hz, average, block_bytes, bits = struct.unpack(order + "HHIIHH", chunk[:16])
    if encoding == _EXTENSIBLE and len(chunk) >= 26:
        encoding = struct.unpack(order + "H", chunk[24:26])[0]
    # Some writers leave the average wrong; where a block is one sample of each channel it need not be believed.
    bytes_per_s = rate_hz * block_bytes if encoding in _SAMPLES_IN_BLOCKS else average
    return encoding, channels, rate_hz, bytes_per_s, bits


def streaming_header(rate_hz: int = PCM_RATE_OUT) -> bytes:
    """44 bytes that begin mono 16-bit PCM of a length not known yet.

    Both sizes are 0xFFFFFFFF: Python's `wave`, which clients parse the first chunk with, refuses a RIFF size of 0.
    """
    unknown = 0xFFFF_FFFF
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, rate_hz, rate_hz * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + layout + struct.pack("<4sI", b"data", unknown)
