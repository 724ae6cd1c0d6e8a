"""FFmpeg's audio filters: a chain of them for PyAV's frames, and what has to be silenced before one.

Runs in media processes only; used by decoder.py and encoder.py.
"""

from __future__ import annotations

import re

import av.error
from av.audio.frame import AudioFrame
from av.filter import Graph

_FLOAT_BYTES = {"flt": 4, "fltp": 4, "dbl": 8, "dblp": 8}


def silence_what_is_no_number(frame: AudioFrame) -> None:
    """Set NaN, infinite and absurd (from 1.7e38) samples to 0, in place.

    One NaN would reach all of the resampler's window, and the mix of all channels, as full-scale noise. All of these,
    and nothing else, have the exponent's upper seven bits set: their last byte, little-endian, is 0x7F or 0xFF.
    """
    width = _FLOAT_BYTES.get(frame.format.name)
    if width is None:
        return
    for plane in frame.planes:
        last_bytes = bytes(plane)[width - 1 :: width]
        if b"\x7f" in last_bytes or b"\xff" in last_bytes:
            samples = memoryview(plane)
            for run in re.finditer(rb"[\x7f\xff]+", last_bytes):
                start, end = run.start() * width, run.end() * width
                samples[start:end] = bytes(end - start)


class Filters:
    """A chain of filters for frames of one kind. A filter is its name and its arguments as FFmpeg writes them."""

    def __init__(self, rate_hz: int, sample_format: str, layout: str, *filters: tuple[str, str]) -> None:
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add(
            "abuffer",
            sample_rate=str(rate_hz),
            sample_fmt=sample_format,
            channel_layout=layout,
            time_base=f"1/{rate_hz}",
        )
        chain = [self._graph.add(name, arguments) for name, arguments in filters]
        self._graph.link_nodes(source, *chain, self._graph.add("abuffersink")).configure()

    def push(self, frame: AudioFrame | None) -> None:
        """Filter a frame; with None, also what is still held back."""
        if frame is not None:
            frame.pts = None
        self._graph.push(frame)

    def pull(self) -> list[AudioFrame]:
        """What is ready by now. Finding that nothing is costs PyAV an exception (20 us), so not for every frame."""
        ready: list[AudioFrame] = []
        while True:
            try:
                piece = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return ready
            assert isinstance(piece, AudioFrame)
            ready.append(piece)
