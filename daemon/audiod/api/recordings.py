"""Recordings of voices, whoever sends them and in which way: how large, how long and how loud they have to be.

Knows no endpoint; decoding is media's.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import os
import re
from collections.abc import Iterator

from audiod.media.audio_memory import Held
from audiod.media.pool import Pcm
from audiod.media.upload import Upload
from audiod.voices import AUDIO_RATE_HZ
from audioproto.errors import AudiodError, BadAudio, BadRequest

RECORDING_BYTES = 10 * 2**20
"""Largest upload, as OpenAI's."""

LONGEST_S = 60.0
"""Of a recording. OpenAI takes 30 s; cloning models gain nothing from more."""

SHORTEST_SAMPLE_S = 1.0
LEAST_AUDIBLE_S = 0.5
_AUDIBLE = 328
"""-40 dB of full scale: speech in a quiet recording is louder, the noise of a room is not."""

_WINDOW = AUDIO_RATE_HZ // 50
_EVERY = 4
"""Samples looked at, of which one in four tells as much about loudness."""

_PIECE_BYTES = 2**16
"""Handled at a time on the event loop, in a fraction of a millisecond."""

_URL = re.compile(r"([a-z][a-z0-9+.-]{0,19}):", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


@contextlib.contextmanager
def naming(field: str) -> Iterator[None]:
    """Errors about a file name the field that it came in."""
    try:
        yield
    except AudiodError as error:
        if error.param == "file":
            error.param = field
        raise


async def store(audio: bytes, held: Held) -> Upload:
    """A recording as an upload, for media to decode; the caller closes it. Raises what Held.reserve raises."""
    upload = Upload(RECORDING_BYTES, held, len(audio))
    try:
        for start in range(0, len(audio), _PIECE_BYTES):
            upload.write(memoryview(audio)[start : start + _PIECE_BYTES])
            await asyncio.sleep(0)
        upload.complete()
    except BaseException:
        upload.close()
        raise
    return upload


async def store_text(text: str, held: Held) -> Upload:
    """The same for one that came as text: base64, or a data URL of it.

    Raises BadAudio where it is neither, UploadTooLarge, and what Held.reserve raises; all name the field `file`.
    """
    start = 0
    if url := _URL.match(text):
        if url[1].lower() != "data":
            raise BadRequest("a URL is not fetched: send the recording itself, as base64 or a data URL", param="file")
        data = _DATA_URL.match(text)
        if data is None:
            raise BadAudio("a data URL must be base64: data:audio/wav;base64,...", param="file")
        start = data.end()
    upload = Upload(RECORDING_BYTES, held, min(RECORDING_BYTES, (len(text) - start) * 3 // 4))
    try:
        rest = ""
        for at in range(start, len(text), _PIECE_BYTES):
            piece = rest + text[at : at + _PIECE_BYTES].replace("\r", "").replace("\n", "")
            whole = len(piece) - len(piece) % 4
            upload.write(binascii.a2b_base64(piece[:whole], strict_mode=True))
            rest = piece[whole:]
            await asyncio.sleep(0)
        upload.write(binascii.a2b_base64(rest + "=" * (-len(rest) % 4), strict_mode=True))  # many leave it out
        upload.complete()
    except ValueError as error:
        upload.close()
        raise BadAudio("the recording is not base64", param="file") from error
    except BaseException:
        upload.close()
        raise
    return upload


def check(pcm: Pcm, shortest_s: float, audible_s: float) -> bytes:
    """The samples, which are at AUDIO_RATE_HZ. Takes milliseconds: not for the event loop.

    Raises BadAudio where there are less than `shortest_s`, or where less than `audible_s` of it can be heard.
    """
    if pcm.duration_s < shortest_s:
        raise BadAudio(f"the recording lasts {pcm.duration_s:.1f} s; {shortest_s:g} s are needed", param="file")
    samples = os.pread(pcm.fd, pcm.samples * 2, 0)
    if _audible_s(samples) < audible_s:
        raise BadAudio("there is next to nothing to hear in the recording", param="file")
    return samples


def _audible_s(samples: bytes) -> float:
    """Seconds, in windows of 20 ms, that are louder than the noise of a room."""
    heard = memoryview(samples).cast("h")
    windows = (heard[start : start + _WINDOW : _EVERY] for start in range(0, len(heard), _WINDOW))
    return sum(max(max(window), -min(window)) >= _AUDIBLE for window in windows) * _WINDOW / AUDIO_RATE_HZ
