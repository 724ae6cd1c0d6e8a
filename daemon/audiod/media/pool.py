"""The daemon's side of decoding, encoding and listening: one job in one process, so many at a time, each with limits.

Imports neither av nor numpy and waits for nothing on the event loop. The zygote that the processes are forked from is
started by the first job and ended when there has been none for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType

import msgspec

from audiod.media import riff
from audiod.media.audio_memory import Held
from audiod.media.claims import check_wave, empty, too_long
from audiod.media.formats import SpeechFormat, is_unchanged
from audiod.media.launcher import MediaProcess, MediaZygote
from audiod.media.live import LiveFormat
from audiod.media.messages import (
    DECODED_SAMPLES,
    PIECE_BYTES,
    Decode,
    Decoded,
    Decoding,
    Encode,
    Encoded,
    Feed,
    Finish,
    Flush,
    Hear,
    Heard,
    Limits,
    Listen,
    Refused,
)
from audiod.media.upload import Upload
from audioproto.errors import AudiodError, BadAudio, Draining, Unavailable, from_body
from audioproto.types import PCM_RATE_IN, PCM_RATE_OUT

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_COPY_BYTES = 1024 * 1024
"""Copied in one go on the event loop: about 0.3 ms."""

_START_S = 30.0
"""For a process to be there; importing PyAV from a cold disk takes seconds."""

_TRIES = 3
_STREAM_CPU_S = 3600
_ANSWER_S = 30.0
_CONVERT = "ffmpeg -i INPUT -ac 1 -ar 16000 OUTPUT.wav"
_BROKEN = (EOFError, OSError, msgspec.MsgspecError)
"""How a process's end shows."""


class Pcm:
    """Mono s16le at `rate_hz` in a sealed memfd: it can be mapped without fear that it changes. Close it.

    Its bytes are `held` while it is open.
    """

    def __init__(self, held: Held, rate_hz: int) -> None:
        self.fd = os.memfd_create("audiod-pcm", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.rate_hz = rate_hz
        self.samples = 0
        self._held = held
        self._reserved_bytes = 0

    def reserve(self, samples: int) -> None:
        """Make room for so many in all. Raises what Held.reserve raises."""
        if samples * 2 > self._reserved_bytes:
            self._held.reserve(samples * 2 - self._reserved_bytes)
            self._reserved_bytes = samples * 2

    def complete(self, samples: int) -> None:
        """There are so many, and never more: what was reserved in vain is given back."""
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        self.samples = samples
        self._held.give_back(self._reserved_bytes - samples * 2)
        self._reserved_bytes = samples * 2

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate_hz

    def close(self) -> None:
        """Free the memory, unless a worker still has it mapped. May be called again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._held.give_back(self._reserved_bytes)

    def __enter__(self) -> Pcm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Encoder:
    """A speech encoder, from MediaPool.encoder. Takes PCM as it is made and gives bytes as soon as there are any."""

    def __init__(self, header: bytes, process: MediaProcess | None, failed: Callable[[str], None]) -> None:
        self._header = header
        self._process = process
        self._failed = failed

    async def feed(self, pcm: bytes) -> bytes:
        """Encode mono s16le PCM, whole samples, and return what is ready, perhaps nothing. Raises AudiodError."""
        if len(pcm) % 2:
            raise ValueError("half a sample")
        if self._process is None:
            return self._with_header([pcm])
        pieces = [Feed(pcm[start : start + PIECE_BYTES]) for start in range(0, len(pcm), PIECE_BYTES)]
        return self._with_header([await self._ask(self._process, piece) for piece in pieces])

    async def finish(self) -> bytes:
        """No more is coming: return the rest. Raises AudiodError."""
        rest = [] if self._process is None else [await self._ask(self._process, Finish())]
        return self._with_header(rest)

    async def _ask(self, process: MediaProcess, message: Feed | Finish) -> bytes:
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(_ANSWER_S):
                await process.send(message)
                while True:
                    match await process.receive():
                        case Encoded(data, more):
                            pieces.append(data)
                            if not more:
                                return b"".join(pieces)
                        case other:
                            raise EOFError(f"{other!r} is not for us")
        except (*_BROKEN, TimeoutError) as error:
            self._failed("timeout" if isinstance(error, TimeoutError) else "crashed")
            raise AudiodError("the process encoding the speech ended", hint="journalctl -u audiod -n 50") from error

    def _with_header(self, pieces: list[bytes]) -> bytes:
        if self._header:
            pieces.insert(0, self._header)
            self._header = b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Ear:
    """Hears live audio, from MediaPool.ear: whatever its format, PCM at 16 kHz comes out. One call at a time."""

    def __init__(self, process: MediaProcess, failed: Callable[[str], None]) -> None:
        self._process = process
        self._failed = failed

    async def hear(self, audio: bytes) -> Heard:
        """What `audio`, at most HEAR_BYTES of it, was; the last 3 ms may be held back. Raises AudiodError."""
        return await self._ask(Hear(audio))

    async def flush(self) -> Heard:
        """What has been held back. Raises AudiodError."""
        return await self._ask(Flush())

    async def _ask(self, message: Hear | Flush) -> Heard:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._process.send(message)
                match await self._process.receive():
                    case Heard() as heard:
                        return heard
                    case other:
                        raise EOFError(f"{other!r} is not for us")
        except (*_BROKEN, TimeoutError) as error:
            self._failed("timeout" if isinstance(error, TimeoutError) else "crashed")
            raise AudiodError("the process listening to the audio ended", hint="journalctl -u audiod -n 50") from error


class MediaPool:
    """Decodes uploads, encodes speech and listens to live audio.

    `max_audio_s` is the longest recording decoded, `decode_timeout_s` the longest time spent on one. At most
    `max_jobs` processes decode and as many encode at a time, so that a slow listener holds up nobody's transcript;
    further jobs wait. Ears are not bounded here. One more process stands ready. `idle_s` after the last job all are
    ended. A process may use `memory_bytes` beyond the 300 MB or so of address space that PyAV maps.
    """

    def __init__(
        self,
        *,
        max_audio_s: float = 7200.0,
        decode_timeout_s: float = 60.0,
        max_jobs: int = 8,
        idle_s: float = 60.0,
        memory_bytes: int = 1024 * 2**20,
    ) -> None:
        self._max_audio_s = max_audio_s
        self._decode_timeout_s = decode_timeout_s
        self._idle_s = idle_s
        self._memory_bytes = memory_bytes
        self._decoding = asyncio.Semaphore(max_jobs)
        self._encoding = asyncio.Semaphore(max_jobs)
        self._jobs = 0
        self._idle: asyncio.TimerHandle | None = None
        self._starting = asyncio.Lock()
        self._zygote: MediaZygote | None = None
        self._ending: MediaZygote | None = None
        self._spare: MediaProcess | None = None
        self._closed = False
        self.on_failure: Callable[[str, str], None] = lambda task, reason: None
        """Told of every process that failed at work, by task and reason (see audiod/metrics.py); for metrics."""

    async def decode(self, upload: Upload, rate_hz: int = PCM_RATE_IN, max_audio_s: float = math.inf) -> Pcm:
        """The upload's (first) audio as PCM, whatever its container, held as the upload is; the caller closes both.

        Mono at `rate_hz`, no longer than `max_audio_s`, nor than what the pool was made for. Raises BadAudio and
        AudioTooLong, whatever the upload does to the decoder, and what Held.reserve raises.
        """
        if upload.size == 0:
            raise BadAudio("the upload is empty", param="file")
        pcm = Pcm(upload.held, rate_hz)
        max_audio_s = min(max_audio_s, self._max_audio_s)
        try:
            wave = riff.read_header(partial(os.pread, upload.fd), upload.size)
            if wave is not None and wave.is_plain(rate_hz):
                check_wave(wave, max_audio_s)
                pcm.complete(await self._copy(upload, wave, pcm, max_audio_s))
            else:
                pcm.complete(await self._decode(upload, pcm, max_audio_s))
        except BaseException:
            pcm.close()
            raise
        return pcm

    async def _copy(self, upload: Upload, wave: riff.WaveHeader, pcm: Pcm, max_audio_s: float) -> int:
        """Samples that are as wanted already are copied by the kernel: no decoder, so no process (0.2 ms, not 4)."""
        found = wave.found_bytes if wave.claimed_bytes is None else wave.claimed_bytes
        samples = found // 2
        if samples == 0:
            raise empty()
        if samples > max_audio_s * pcm.rate_hz:
            raise too_long(samples / pcm.rate_hz, max_audio_s)
        pcm.reserve(samples)
        copied = 0
        while rest := samples * 2 - copied:
            count = min(rest, _COPY_BYTES)
            copied += os.copy_file_range(upload.fd, pcm.fd, count, wave.data_offset + copied, copied)
            await asyncio.sleep(0)
        return samples

    async def _decode(self, upload: Upload, pcm: Pcm, max_audio_s: float) -> int:
        size_bytes = int(max_audio_s * pcm.rate_hz * 2)
        limits = Limits(self._memory_bytes, math.ceil(self._decode_timeout_s), size_bytes + 2**20)
        job = Decode(limits, max_audio_s, pcm.rate_hz)
        async with self._process(self._decoding, job, upload.fd, pcm.fd) as process:
            pcm.reserve(DECODED_SAMPLES)
            try:
                async with asyncio.timeout(self._decode_timeout_s):
                    while isinstance(answer := await process.receive(), Decoding):
                        pcm.reserve(answer.samples)
            except TimeoutError as error:
                self.on_failure("decode", "timeout")
                raise BadAudio(
                    f"decoding the file took longer than {self._decode_timeout_s:g} s", param="file", hint=_CONVERT
                ) from error
            except _BROKEN as error:
                if self._closed:
                    raise Draining("audiod is stopping") from error
                self.on_failure("decode", "crashed")
                raise BadAudio("the decoder crashed on this file", param="file", hint=_CONVERT) from error
        match answer:
            case Decoded(samples) if samples * 2 == os.fstat(pcm.fd).st_size:
                return samples
            case Refused(body):
                raise from_body(body)
            case other:
                self.on_failure("decode", "crashed")
                raise BadAudio(f"the decoder made no sense of this file: {other!r}", param="file", hint=_CONVERT)

    @contextlib.asynccontextmanager
    async def encoder(self, form: SpeechFormat, rate_hz: int, tempo: float = 1.0) -> AsyncIterator[Encoder]:
        """An encoder of mono PCM at `rate_hz` Hz to `form`, `tempo` times as fast at the same pitch.

        Leaving the block ends it, wherever it is. WAV and PCM that are right already cost no process.
        """
        header = riff.streaming_header() if form is SpeechFormat.WAV else b""
        is_raw = form in (SpeechFormat.WAV, SpeechFormat.PCM)
        if is_raw and rate_hz == PCM_RATE_OUT and is_unchanged(tempo):
            yield Encoder(header, None, partial(self._stream_failed, "encode"))
            return
        job = Encode(Limits(self._memory_bytes, _STREAM_CPU_S, 0), form, rate_hz, tempo)
        async with self._process(self._encoding, job) as process:
            yield Encoder(header, process, partial(self._stream_failed, "encode"))

    @contextlib.asynccontextmanager
    async def ear(self, form: LiveFormat, detect: bool) -> AsyncIterator[Ear]:
        """An ear for audio in `form`; with `detect`, it tells speech from silence. Leaving the block ends it.

        Raises Unavailable where no process can be had.
        """
        job = Listen(Limits(self._memory_bytes, _STREAM_CPU_S, 0), form, detect)
        async with self._process(contextlib.nullcontext(), job) as process:
            yield Ear(process, partial(self._stream_failed, "listen"))

    def _stream_failed(self, task: str, reason: str) -> None:
        if not self._closed:
            self.on_failure(task, reason)

    async def close(self) -> None:
        """End every media process, and return when they are gone. Jobs that still run fail."""
        self._closed = True
        self._end()
        if self._ending is not None:
            await self._ending.gone()

    @contextlib.asynccontextmanager
    async def _process(
        self, slots: AbstractAsyncContextManager[None], job: Decode | Encode | Listen, *descriptors: int
    ) -> AsyncIterator[MediaProcess]:
        """A process at work on `job`; it is killed when the block is left before it is done."""
        async with slots:
            self._jobs += 1
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            try:
                process = await self._begin(job, descriptors)
                try:
                    yield process
                finally:
                    process.end()
            finally:
                self._jobs -= 1
                if self._jobs == 0 and self._zygote is not None:
                    self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end)

    async def _begin(self, job: Decode | Encode | Listen, descriptors: tuple[int, ...]) -> MediaProcess:
        """Give the job to the spare process or a new one. One that ended before it had the job is no one's fault."""
        task = type(job).__name__.lower()
        try:
            async with asyncio.timeout(_START_S):
                for _ in range(_TRIES):
                    process, self._spare = self._spare, None
                    process = process or await self._fork()
                    try:
                        await process.begin(job, descriptors)
                    except _BROKEN:
                        process.end()
                        self.on_failure(task, "lost")
                        continue
                    except BaseException:
                        process.end()
                        raise
                    self._stand_by()
                    return process
        except OSError as error:
            self.on_failure(task, "start_failed")
            raise _cannot_start(str(error) or f"nothing happened for {_START_S:g} s") from error
        self.on_failure(task, "start_failed")
        raise _cannot_start("it ended")

    async def _fork(self) -> MediaProcess:
        """Ask the zygote for a process, starting it where there is none. Raises OSError."""
        async with self._starting:
            if self._zygote is not None:
                try:
                    return self._zygote.fork()
                except (BrokenPipeError, ConnectionResetError):
                    self._end()
            if self._closed:
                raise Draining("audiod is stopping")
            if self._ending is not None:
                await self._ending.gone()
                self._ending = None
            self._zygote = await MediaZygote.start()
            return self._zygote.fork()

    def _stand_by(self) -> None:
        """Have the next process forked while this job runs, so that the next job need not wait for it."""
        if self._spare is None and self._zygote is not None:
            with contextlib.suppress(OSError):
                self._spare = self._zygote.fork()

    def _end(self) -> None:
        """Kill zygote and processes. `_ending` is then to be waited for."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._spare is not None:
            self._spare.end()
            self._spare = None
        if self._zygote is not None:
            self._zygote.end()
            self._zygote, self._ending = None, self._zygote


def _cannot_start(reason: str) -> Unavailable:
    return Unavailable(
        f"the media process cannot be started: {reason}", hint="journalctl -u audiod -n 50", retry_after_s=5
    )
