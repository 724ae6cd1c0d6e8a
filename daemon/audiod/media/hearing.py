"""Live audio as recognisers take it: PCM at 24 kHz or G.711 in, 16 kHz PCM out as it comes, with where speech is in it.

Runs in media processes only; knows no sockets: input and output are bytes.
"""

from __future__ import annotations

import struct

from av.audio.frame import AudioFrame

from audiod.media.filters import Filters
from audiod.media.live import LiveFormat
from audiod.media.vad import SpeechDetector
from audioproto.types import PCM_RATE_IN

_WANTED = ("aformat", f"sample_fmts=s16:sample_rates={PCM_RATE_IN}:channel_layouts=mono")


def _mu_law(code: int) -> int:
    """ITU-T G.711: sign, exponent and mantissa, all inverted, of a magnitude with a bias of 33 in 14 bits."""
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) * 2 + 33) << (code >> 4 & 7)) - 33
    return (-magnitude if code & 0x80 else magnitude) * 4


def _a_law(code: int) -> int:
    """ITU-T G.711: even bits inverted, 13 bits."""
    code ^= 0x55
    exponent, mantissa = code >> 4 & 7, code & 0x0F
    magnitude = (mantissa * 2 + 1) if exponent == 0 else (mantissa * 2 + 33) << (exponent - 1)
    return (magnitude if code & 0x80 else -magnitude) * 8


_TABLES = {
    LiveFormat.PCMU: [struct.pack("<h", _mu_law(code)) for code in range(256)],
    LiveFormat.PCMA: [struct.pack("<h", _a_law(code)) for code in range(256)],
}


class Hearing:
    """Takes audio of one format as it comes. Without a detector, no probabilities are given."""

    def __init__(self, form: LiveFormat, detector: SpeechDetector | None) -> None:
        self._format = form
        self._detector = detector
        self._half_sample = b""
        self._filters = self._new_filters()

    def _new_filters(self) -> Filters:
        return Filters(self._format.rate_hz, "s16", "mono", _WANTED)

    def feed(self, audio: bytes) -> tuple[bytes, list[float]]:
        """16 kHz s16le, less than 3 ms of it held back, and the speech probabilities of the frames that it completes.

        A sample may be cut in two.
        """
        if self._format is LiveFormat.PCM:
            audio = self._half_sample + audio
            whole = len(audio) // 2 * 2
            audio, self._half_sample = audio[:whole], audio[whole:]
        else:
            audio = b"".join(map(_TABLES[self._format].__getitem__, audio))
        if not audio:
            return b"", []
        frame = AudioFrame(format="s16", layout="mono", samples=len(audio) // 2)
        frame.sample_rate = self._format.rate_hz
        frame.planes[0].update(audio)
        self._filters.push(frame)
        return self._pull()

    def flush(self) -> tuple[bytes, list[float]]:
        """What has been held back. What is fed from now on is taken for a new beginning."""
        self._half_sample = b""
        self._filters.push(None)
        rest = self._pull()
        self._filters = self._new_filters()
        return rest

    def _pull(self) -> tuple[bytes, list[float]]:
        pcm = b"".join(bytes(memoryview(piece.planes[0])[: piece.samples * 2]) for piece in self._filters.pull())
        return pcm, self._detector.hear(pcm) if self._detector else []
