"""PyAV at work: mono PCM to the speech formats, as it comes.

Runs in media processes only; knows no sockets: input and output are bytes.
"""

from __future__ import annotations

import math
from fractions import Fraction

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from audiod.media.filters import Filters
from audiod.media.formats import SpeechFormat, is_unchanged
from audioproto.types import PCM_RATE_OUT

_FLUSH = {"flush_packets": "1"}
"""Hand on each packet as it is made, instead of 32 KiB of them."""

ENCODED: dict[SpeechFormat, tuple[str, str, int, dict[str, str]]] = {
    # Without these two FFmpeg begins with tags that it would fill in at the end, if a stream could be rewound.
    SpeechFormat.MP3: ("mp3", "libmp3lame", 96_000, {"write_xing": "0", "id3v2_version": "0"}),
    # FFmpeg fills an Ogg page with 1 s by default; a listener would wait for it.
    SpeechFormat.OPUS: ("ogg", "libopus", 48_000, {"page_duration": "100000"}),
    SpeechFormat.AAC: ("adts", "aac", 96_000, {}),
    # Nor is there anyone to write tags into the 8 KiB that it leaves free for them.
    SpeechFormat.FLAC: ("flac", "flac", 0, {"metadata_header_padding": "0"}),
}
"""Container, encoder, bit rate (chosen to be transparent for one voice), muxer options."""


class SpeechEncoder:
    """Turns mono s16le PCM of `rate_hz` into `form`, `tempo` times as fast at the same pitch, as it comes.

    `wav` gives the samples only: its header is written by whoever sends them.
    """

    def __init__(self, form: SpeechFormat, rate_hz: int, tempo: float) -> None:
        self._rate_hz = rate_hz
        self._output = _Output()
        self._muxer = _Muxer(self._output, *ENCODED[form]) if form in ENCODED else None
        sample_format = self._muxer.sample_format if self._muxer else "s16"
        speech = f"sample_fmts={sample_format}:sample_rates={PCM_RATE_OUT}:channel_layouts=mono"
        self._filters = Filters(rate_hz, "s16", "mono", *_tempo_filters(tempo), ("aformat", speech))

    def feed(self, pcm: bytes) -> bytes:
        """Take whole samples and return what is ready, perhaps nothing."""
        if pcm:
            frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
            frame.sample_rate = self._rate_hz
            frame.planes[0].update(pcm)
            self._push(frame)
        return self._output.take()

    def finish(self) -> bytes:
        """No more is coming: return the rest."""
        self._push(None)
        if self._muxer:
            self._muxer.finish()
        return self._output.take()

    def _push(self, frame: AudioFrame | None) -> None:
        self._filters.push(frame)
        for piece in self._filters.pull():
            if self._muxer:
                self._muxer.encode(piece)
            else:
                self._output.write(memoryview(piece.planes[0])[: piece.samples * 2])


class _Output:
    """The file that PyAV writes to. Without a `seek`, so that it is not rewound."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def write(self, data: bytes | memoryview) -> int:
        self._pending += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._pending)
        self._pending.clear()
        return data


class _Muxer:
    """An encoder and the container around it."""

    def __init__(self, output: _Output, container: str, codec: str, bit_rate: int, options: dict[str, str]) -> None:
        self._container = av.open(output, mode="w", format=container, options=_FLUSH | options)
        stream = self._container.add_stream(codec, rate=PCM_RATE_OUT)
        assert isinstance(stream, AudioStream)
        stream.layout = "mono"
        stream.bit_rate = bit_rate
        stream.codec_context.thread_count = 1
        self.sample_format = stream.format.name
        self._stream = stream
        self._samples = 0

    def encode(self, frame: AudioFrame) -> None:
        # The filters count in a time base of their own, from what they were not told.
        frame.pts, frame.time_base = self._samples, Fraction(1, PCM_RATE_OUT)
        self._samples += frame.samples
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _tempo_filters(tempo: float) -> list[tuple[str, str]]:
    """`atempo` once or more: below 0.5 it refuses, and above 2 it skips samples instead of blending them."""
    if is_unchanged(tempo):
        return []
    stages = max(1, math.ceil(abs(math.log2(tempo)) - 1e-9))
    return [("atempo", f"{tempo ** (1 / stages):.6f}")] * stages
