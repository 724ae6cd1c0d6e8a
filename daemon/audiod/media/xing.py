"""The Xing, Info or VBRI tag of an mp3: how long the file was when it was written.

Never decodes. ffmpeg reads the same tag but drops it, in silence, when the file is shorter than it says, which is
what we want to know. Source: Gabriel Bouvigne's and LAME's descriptions of the tag; ISO 11172-3 and 13818-3 headers.
"""

from __future__ import annotations

import struct

from audiod.media.riff import ReadAt

_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""By the header's version bits: MPEG-1, MPEG-2, MPEG-2.5."""

_SIDE_BYTES = {(3, False): 32, (3, True): 17, (2, False): 17, (2, True): 9, (0, False): 17, (0, True): 9}
"""By version bits and mono: what lies between a frame's header and a Xing tag. A VBRI tag is always 32 bytes on."""

_MAX_TAGS = 4
_WINDOW_BYTES = 4096


def duration_s(read_at: ReadAt) -> float | None:
    """Seconds that the tag in the first frame promises; None where there is no tag or it counts no frames."""
    offset = 0
    for _ in range(_MAX_TAGS):
        head = read_at(10, offset)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        size = (head[6] << 21) | (head[7] << 14) | (head[8] << 7) | head[9]
        offset += 10 + size + (10 if head[5] & 0x10 else 0)
    window = read_at(_WINDOW_BYTES, offset)
    start = window.find(b"\xff")
    while 0 <= start <= len(window) - 4:
        if (seconds := _tag_s(window[start : start + 64])) is not None:
            return seconds
        start = window.find(b"\xff", start + 1)
    return None


def _tag_s(frame: bytes) -> float | None:
    """The promise of the tag in `frame`, if it begins a layer III frame that holds one."""
    version, layer, rate_index = (frame[1] >> 3) & 3, (frame[1] >> 1) & 3, (frame[2] >> 2) & 3
    if frame[1] < 0xE0 or layer != 1 or version == 1 or rate_index == 3:
        return None
    xing = 4 + _SIDE_BYTES[version, frame[3] >> 6 == 3]
    if frame[xing : xing + 4] in (b"Xing", b"Info") and len(frame) >= xing + 12:
        flags, frames = struct.unpack_from(">II", frame, xing + 4)
        frames = frames if flags & 1 else 0
    elif frame[36:40] == b"VBRI" and len(frame) >= 54:
        (frames,) = struct.unpack_from(">I", frame, 36 + 14)
    else:
        return None
    samples = 1152 if version == 3 else 576
    return float(frames * samples / _RATES_HZ[version][rate_index]) if frames else None
