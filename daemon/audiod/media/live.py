"""The formats that audio comes in while it is spoken: names and sizes. The daemon and media processes both know them.

Decodes nothing; media/hearing.py does.
"""

from __future__ import annotations

from enum import StrEnum

from audioproto.types import PCM_RATE_IN


class LiveFormat(StrEnum):
    """OpenAI's names of Realtime input formats. All are mono."""

    PCM = "audio/pcm"
    """s16le at 24 kHz."""
    PCMU = "audio/pcmu"
    """G.711 mu-law at 8 kHz."""
    PCMA = "audio/pcma"
    """G.711 A-law at 8 kHz."""

    @property
    def rate_hz(self) -> int:
        return 24_000 if self is LiveFormat.PCM else 8_000

    @property
    def sample_bytes(self) -> int:
        return 2 if self is LiveFormat.PCM else 1

    def heard_bytes(self, count_bytes: int) -> int:
        """How much `count_bytes` are as s16le at 16 kHz."""
        return count_bytes // self.sample_bytes * PCM_RATE_IN // self.rate_hz * 2
