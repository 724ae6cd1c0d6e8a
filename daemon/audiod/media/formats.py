"""The formats that speech is answered in, and their content types: one table.

Names only; how each is made is in encoder.py.
"""

from __future__ import annotations

import math
from enum import StrEnum


class SpeechFormat(StrEnum):
    """`response_format` of OpenAI's speech endpoint. All are mono; all but opus, which is always 48 kHz, are 24 kHz."""

    MP3 = "mp3"
    OPUS = "opus"
    """In Ogg."""
    AAC = "aac"
    """In ADTS."""
    FLAC = "flac"
    WAV = "wav"
    """16-bit PCM; its header gives no length, because it is sent before the length is known."""
    PCM = "pcm"
    """s16le without a header."""

    @property
    def content_type(self) -> str:
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    SpeechFormat.MP3: "audio/mpeg",
    SpeechFormat.OPUS: "audio/opus",
    SpeechFormat.AAC: "audio/aac",
    SpeechFormat.FLAC: "audio/flac",
    SpeechFormat.WAV: "audio/wav",
    SpeechFormat.PCM: "audio/pcm",
}


def is_unchanged(tempo: float) -> bool:
    """Whether a tempo is 1 to within what anyone could hear; a quotient of speeds is seldom exactly 1."""
    return math.isclose(tempo, 1.0, abs_tol=1e-3)
