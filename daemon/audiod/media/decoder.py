"""PyAV at work: any audio file to mono s16le, at 16 kHz unless asked otherwise.

Runs in media processes only; knows no sockets, and opens nothing: input and output are descriptors.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from audiod.media import riff, xing
from audiod.media.claims import check_wave, empty, too_long, truncated
from audiod.media.filters import Filters, silence_what_is_no_number
from audiod.media.messages import DECODED_SAMPLES
from audioproto.errors import BadAudio
from audioproto.types import PCM_RATE_IN

_DEMUXERS = ("aac", "aiff", "amr", "au", "caf", "flac", "matroska", "mov", "mp3", "mpeg", "ogg", "w64", "wav")
"""What OpenAI's endpoint documents (flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav, webm) and what phones and recorders
write. None of these opens a second file; playlists, images, subtitles and session descriptions are not among them."""

_DECODERS = {
    "aac", "ac3", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms", "alac", "amrnb", "amrwb", "eac3", "flac", "gsm_ms",
    "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "vorbis",
} | {name for name in av.codecs_available if name.startswith("pcm_")}  # fmt: skip
"""No video decoder: those are the larger part of FFmpeg's past holes, and even probing would run them."""

_STATES_LENGTH = {"aiff", "au", "caf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "ogg", "w64"}
"""Containers that know how long they are. The others' durations are FFmpeg's guesses from bit rate and size."""

_MAGICS = {b"RIFF": 0, b"OggS": 0, b"fLaC": 0, b"ID3": 0, b"ftyp": 4, b"\x1a\x45\xdf\xa3": 0}
"""Beginnings that say audio was meant, and where they stand; only the wording of an error depends on them."""

_INPUT_OPTIONS = {
    "format_whitelist": ",".join(_DEMUXERS),
    "codec_whitelist": ",".join(sorted(_DECODERS)),
    "protocol_whitelist": "none",
    # wav only, bytes: FFmpeg's 4096 makes each of 172 packets of an 11 s clip cost 35 us; beyond this, probing costs.
    "max_size": "16384",
    # Looking for DTS hidden in PCM took 4 to 40 ms a file.
    "max_probe_packets": "1",
}

_RATES_HZ = (1_000, 768_000)
"""Beyond these a header is broken or hostile: at 1 Hz every byte would become a second."""

_PULL_EVERY = 16
"""Frames pushed through the filters before their output is fetched."""

_CONVERT = "ffmpeg -i INPUT -ac 1 -ar 16000 OUTPUT.wav"


def decode(
    source: int,
    target: int,
    max_audio_s: float,
    announce: Callable[[int], None] = lambda samples: None,
    rate_hz: int = PCM_RATE_IN,
) -> int:
    """Decode the file behind descriptor `source` into `target`, and return the number of samples written.

    Mono s16le at `rate_hz`; channels are mixed down; what is no finite number becomes 0. `announce` is told how many
    there may be next, before more than DECODED_SAMPLES beyond the last such number are written. Raises BadAudio and
    AudioTooLong.
    """
    read_at = partial(os.pread, source)
    wave = riff.read_header(read_at, os.fstat(source).st_size)
    if wave is not None:
        check_wave(wave, max_audio_s)
    try:
        container = av.open(
            _Source(read_at, source),
            mode="r",
            options=_INPUT_OPTIONS,
            metadata_errors="replace",
            buffer_size=128 * 1024,
            io_open=_open_nothing,
        )
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise _unreadable(read_at) from error
    with container:
        stream = _audio_stream(container)
        declared_s = None if wave is not None else _declared_s(container, stream, read_at)
        if declared_s is not None and declared_s > max_audio_s:
            raise too_long(declared_s, max_audio_s)
        return _decode_stream(container, stream, target, max_audio_s, declared_s, announce, rate_hz)


class _Source:
    """A seekable file for PyAV over a descriptor whose own position is left alone: a second decode may share it."""

    name = "upload"

    def __init__(self, read_at: riff.ReadAt, descriptor: int) -> None:
        self._read_at = read_at
        self._size = os.fstat(descriptor).st_size
        self._position = 0

    def read(self, count: int) -> bytes:
        data = self._read_at(count, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "seek before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _open_nothing(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """Stands in for FFmpeg's own opening of files and addresses that an input names."""
    raise PermissionError(errno.EPERM, "an upload may not refer to other files", url)


def _unreadable(read_at: riff.ReadAt) -> BadAudio:
    head = read_at(12, 0)
    if any(head[at : at + len(magic)] == magic for magic, at in _MAGICS.items()):
        return BadAudio("the file is damaged or truncated", param="file", hint="ffprobe FILE")
    return BadAudio(
        "the file is no audio in a known format (wav, flac, mp3, mp4, m4a, ogg, opus, aac, webm and others)",
        param="file",
        hint=_CONVERT,
    )


def _audio_stream(container: InputContainer) -> AudioStream:
    """The first audio stream, its decoder open."""
    if not container.streams.audio:
        raise BadAudio("the file has no audio stream", param="file", hint="ffprobe FILE")
    stream = container.streams.audio[0]
    # None where FFmpeg has no such decoder, whatever PyAV's type says.
    context: Any = stream.codec_context
    name = context.name if context is not None else "unknown to FFmpeg"
    if name not in _DECODERS:
        raise BadAudio(f"the audio's codec ({name}) is not supported", param="file", hint=_CONVERT)
    context.thread_count = 1
    try:
        context.open(strict=False)
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise BadAudio(f"the audio's {name} header is damaged", param="file") from error
    return stream


def _declared_s(container: InputContainer, stream: AudioStream, read_at: riff.ReadAt) -> float | None:
    """Seconds of audio that the file says it has; None where it says nothing or would only guess."""
    form = container.format.name
    if form == "mp3":
        return xing.duration_s(read_at)
    if form not in _STATES_LENGTH:
        return None
    if stream.duration is not None and stream.time_base is not None and form != "matroska,webm":
        return float(stream.duration * stream.time_base)
    # Matroska states the longest stream's length only, so with video beside it the sound may rightly be shorter.
    if container.duration is None or len(container.streams) > 1:
        return None
    return container.duration / av.time_base


def _decode_stream(
    container: InputContainer,
    stream: AudioStream,
    target: int,
    max_audio_s: float,
    declared_s: float | None,
    announce: Callable[[int], None],
    rate_hz: int,
) -> int:
    limit = int(max_audio_s * rate_hz)
    frames = _Frames(container, stream)
    samples, announced = 0, DECODED_SAMPLES
    for piece in _resampled(frames, rate_hz, stream.codec_context.name.startswith("pcm_f")):
        samples += piece.samples
        if samples > limit:
            raise too_long(max(declared_s or 0.0, samples / rate_hz), max_audio_s)
        if samples > announced:
            announced = samples + DECODED_SAMPLES
            announce(announced)
        os.write(target, memoryview(piece.planes[0])[: piece.samples * 2])
    if samples == 0 or frames.damaged > frames.good:
        if frames.damaged:
            raise BadAudio("the audio is damaged: most of it cannot be decoded", param="file", hint="ffprobe FILE")
        raise empty()
    found_s = max(frames.reached_s, samples / rate_hz)
    if declared_s is not None and declared_s - found_s > max(1.0, 0.1 * declared_s):
        raise truncated(declared_s, found_s)
    return samples


class _Frames:
    """The stream's frames, going on after what cannot be decoded, as players do."""

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._packets = container.demux(stream)
        self._tick_s = float(stream.time_base or 0)
        self.good = 0
        self.damaged = 0
        """Packets that could not be decoded."""
        self.reached_s = 0.0
        """Where the last frame ends on the file's own clock. Ahead of the samples where silence was left out."""

    def __iter__(self) -> Iterator[AudioFrame]:
        first: int | None = None
        while True:
            try:
                packet = next(self._packets)
            except StopIteration:
                return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                self.damaged += 1
                return
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError):
                self.damaged += 1
                continue
            for frame in frames:
                self.good += 1
                if frame.pts is not None:
                    first = frame.pts if first is None else first
                    start_s = (frame.pts - first) * self._tick_s
                    self.reached_s = max(self.reached_s, start_s + frame.samples / frame.sample_rate)
                yield frame


def _resampled(frames: _Frames, rate_hz: int, may_be_no_number: bool) -> Iterator[AudioFrame]:
    """The frames as mono s16 at `rate_hz`.

    A stream may change its rate or layout on the way; the filter is made anew.
    """
    kind: tuple[int, str, str] | None = None
    filters: Filters | None = None
    try:
        for frame in frames:
            if (frame.sample_rate, frame.format.name, frame.layout.name) != kind:
                if filters is not None:
                    filters.push(None)
                    yield from filters.pull()
                kind = frame.sample_rate, frame.format.name, frame.layout.name
                filters = _to_speech(frame, rate_hz)
            assert filters is not None
            if may_be_no_number:
                silence_what_is_no_number(frame)
            filters.push(frame)
            if frames.good % _PULL_EVERY == 0:
                yield from filters.pull()
        if filters is not None:
            filters.push(None)
            yield from filters.pull()
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError) as error:
        raise BadAudio("the audio is damaged: it cannot be resampled", param="file") from error


def _to_speech(frame: AudioFrame, rate_hz: int) -> Filters:
    rate, layout, channels = frame.sample_rate, frame.layout.name, frame.layout.nb_channels
    low, high = _RATES_HZ
    if not low <= rate <= high:
        raise BadAudio(f"the audio claims a sample rate of {rate} Hz", param="file", hint="ffprobe FILE")
    # libswresample has a matrix for named layouts ("5.1"); of channels that only have numbers the mean is taken.
    mean = [("pan", "mono|c0<" + "+".join(f"c{index}" for index in range(channels)))]
    numbered = "channel" in layout or "ambisonic" in layout or channels > 8
    speech = f"sample_fmts=s16:sample_rates={rate_hz}:channel_layouts=mono"
    return Filters(rate, frame.format.name, layout, *(mean if numbered and channels > 1 else []), ("aformat", speech))
