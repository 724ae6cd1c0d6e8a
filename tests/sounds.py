"""Audio made for tests: a sweep whose every sample is known at any rate, and files of every format that hold it."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

Samples = npt.NDArray[np.float64]
"""Mono, within -1 to 1."""

ENCODINGS = {"s16": 1, "u8": 1, "s24": 1, "s32": 1, "f32": 3, "f64": 3, "alaw": 6, "ulaw": 7}
"""Of WAV files, with their format tags."""


def sweep(seconds: float, rate: int, low_hz: float = 200.0, high_hz: float = 3000.0) -> Samples:
    """A tone that rises evenly; the same sound at every rate, so that decoded audio can be compared with it."""
    t = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (low_hz * t + (high_hz - low_hz) * t * t / (2 * seconds)))


def tone(seconds: float, rate: int, hz: float = 440.0) -> Samples:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def s16(samples: Samples) -> bytes:
    return np.rint(samples * 32767).astype("<i2").tobytes()


def similarity(decoded: bytes, original: Samples) -> float:
    """The highest correlation of s16le `decoded` with `original` at any lag; 1.0 is the same sound."""
    a, b = np.frombuffer(decoded, "<i2").astype(np.float64), original
    size = a.size + b.size
    crossed = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    return float(np.max(crossed) / (np.linalg.norm(a) * np.linalg.norm(b)))


def dominant_hz(pcm: bytes, rate: int) -> float:
    """The loudest frequency of s16le `pcm`."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum)) * rate / samples.size


def wav(
    samples: Samples,
    rate: int,
    encoding: str = "s16",
    *,
    channels: int = 1,
    claimed_bytes: int | None = None,
    before_data: bytes = b"",
    after_data: bytes = b"",
) -> bytes:
    """A WAV with the same samples on each channel. `claimed_bytes` is what the data chunk says, if not the truth."""
    body = _encoded(np.repeat(samples, channels), encoding)
    width = len(body) // max(1, samples.size * channels)
    tag = ENCODINGS[encoding]
    layout = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, width * 8)
    claimed = len(body) if claimed_bytes is None else claimed_bytes
    data = struct.pack("<4sI", b"data", claimed) + body + after_data
    chunks = b"WAVE" + struct.pack("<4sI", b"fmt ", len(layout)) + layout + before_data + data
    return struct.pack("<4sI", b"RIFF", min(len(chunks), 0xFFFF_FFFF)) + chunks


def _encoded(samples: Samples, encoding: str) -> bytes:
    if encoding == "u8":
        return (np.rint(samples * 127) + 128).astype("u1").tobytes()
    if encoding == "s24":
        wide = np.rint(samples * (2**23 - 1)).astype("<i4").tobytes()
        return np.frombuffer(wide, "u1").reshape(-1, 4)[:, :3].tobytes()
    if encoding == "s32":
        return np.rint(samples * (2**31 - 1)).astype("<i4").tobytes()
    if encoding in ("f32", "f64"):
        return samples.astype({"f32": "<f4", "f64": "<f8"}[encoding]).tobytes()
    if encoding in ("alaw", "ulaw"):
        coded = muxed("wav", {"alaw": "pcm_alaw", "ulaw": "pcm_mulaw"}[encoding], samples, 8000)
        start = coded.index(b"data") + 8
        return coded[start : start + samples.size]
    return s16(samples)


def muxed(
    container: str,
    codec: str,
    samples: Samples,
    rate: int,
    *,
    layout: str = "mono",
    video: str = "",
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """A file by FFmpeg, `samples` on each channel; `codec` empty leaves the sound out, `video` is a video codec."""
    file = io.BytesIO()
    with av.open(file, mode="w", format=container, options=options or {}) as output:
        output.metadata.update(metadata or {})
        sound: AudioStream | None = None
        picture: VideoStream | None = None
        if video:
            picture = cast(VideoStream, output.add_stream(video, rate=10))
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        if codec:
            sound = cast(AudioStream, output.add_stream(codec, rate=rate, options=codec_options or {}))
            sound.layout = layout
        if picture is not None:
            for number in range(round(samples.size / rate * 10)):
                image = av.VideoFrame(64, 64, "yuv420p")
                image.pts = number
                output.mux(picture.encode(image))
            output.mux(picture.encode(None))
        if sound is not None:
            channels = np.tile(samples.astype(np.float32), (sound.layout.nb_channels, 1))
            for start in range(0, samples.size, 4096):
                piece = np.ascontiguousarray(channels[:, start : start + 4096])
                frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
                frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                output.mux(sound.encode(frame))
            output.mux(sound.encode(None))
    return file.getvalue()
