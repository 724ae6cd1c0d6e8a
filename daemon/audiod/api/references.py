"""The recordings that a model is to imitate: of a stored voice, or sent with the request, together in one descriptor.

What came with a request is decoded by media, checked as what is stored was, and never on a disk. Who can imitate is
the catalogue's to say.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

import msgspec
from aiohttp import web

from audiod.api import recordings
from audiod.api.recordings import LEAST_AUDIBLE_S, LONGEST_S, SHORTEST_SAMPLE_S
from audiod.api.services import SERVICES, STAGE, Services
from audiod.media.pool import Pcm
from audiod.voices import AUDIO_RATE_HZ, StoredVoice
from audioproto.errors import StoreFailed, VoiceNotFound
from audioproto.worker import Recording, Reference, Synthesize

_COPY_BYTES = 2**20
"""Copied in one go on the event loop: about 0.3 ms."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording that came with a request, as base64 or a data URL, in the field `param`."""

    audio: str
    param: str
    transcript: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose voice it is to be, and what it is to sound like."""

    voice: StoredVoice | Sample | None = None
    emotion: Sample | None = None


class References:
    """Recordings as the worker protocol has them, one after the other in `pcm`, if there are any. Use it in a `with`.

    Knows nothing any more of the text that they came as, which may be large.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._held = services.audio_memory.hold()
        self._pcm: Pcm | None = None
        self._voice: Reference | None = None
        self._emotion: Recording | None = None

    @property
    def descriptor(self) -> int | None:
        return None if self._pcm is None else self._pcm.fd

    def added_to(self, work: Synthesize) -> Synthesize:
        """`work`, with its recordings."""
        emotion = work.emotion
        if emotion is not None and self._emotion is not None:
            emotion = msgspec.structs.replace(emotion, recording=self._emotion)
        return msgspec.structs.replace(work, reference=self._voice, emotion=emotion)

    async def gather(self, wanted: Wanted) -> None:
        """Called once. Raises BadAudio, AudioTooLong and UploadTooLarge naming the field, VoiceNotFound, and what
        Held.reserve raises."""
        self._pcm = whole = Pcm(self._held, AUDIO_RATE_HZ)
        samples = 0
        if wanted.voice is not None:
            recording = await self._append(wanted.voice, samples)
            stored = wanted.voice.id if isinstance(wanted.voice, StoredVoice) else ""
            self._voice = Reference(recording, wanted.voice.transcript, stored)
            samples += recording.samples
        if wanted.emotion is not None:
            self._emotion = await self._append(wanted.emotion, samples)
            samples += self._emotion.samples
        whole.complete(samples)

    async def _append(self, source: StoredVoice | Sample, begin: int) -> Recording:
        """Put the recording of `source` behind the others, which are `begin` samples."""
        assert self._pcm is not None
        param = source.param if isinstance(source, Sample) else "voice"
        with recordings.naming(param):
            if isinstance(source, StoredVoice):
                upload = await recordings.store(await _read(self._services, source), self._held)
            else:
                upload = await recordings.store_text(source.audio, self._held)
            with upload, await self._services.media.decode(upload, AUDIO_RATE_HZ, LONGEST_S) as pcm:
                if isinstance(source, Sample):
                    await asyncio.to_thread(recordings.check, pcm, SHORTEST_SAMPLE_S, LEAST_AUDIBLE_S)
                self._pcm.reserve(begin + pcm.samples)
                at, size_bytes = 0, pcm.samples * 2
                while at < size_bytes:
                    count = min(size_bytes - at, _COPY_BYTES)
                    at += os.copy_file_range(pcm.fd, self._pcm.fd, count, at, begin * 2 + at)
                    await asyncio.sleep(0)
                return Recording(pcm.samples, pcm.rate_hz, begin)

    async def __aenter__(self) -> References:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pcm is not None:
            self._pcm.close()
        self._held.give_back(self._held.held_bytes)
        voices, voice = self._services.voices, self._voice.voice if self._voice else ""
        if voice and voice not in voices.voices.records:
            # It was deleted meanwhile, and its engine may have kept something of it after that.
            await asyncio.to_thread(voices.remove_made, voice)


@asynccontextmanager
async def gathered(request: web.Request, wanted: Wanted) -> AsyncIterator[References]:
    """What is `wanted`, held until the end of the block. Raises what References.gather raises."""
    async with References(request.app[SERVICES]) as references:
        if wanted != Wanted():
            request[STAGE] = "decoding"
            await references.gather(wanted)
            request[STAGE] = ""
        del wanted
        yield references


async def _read(services: Services, voice: StoredVoice) -> bytes:
    file = services.voices.voices.audio_file(voice.id)
    try:
        return await asyncio.to_thread(file.read_bytes)
    except FileNotFoundError as error:
        if voice.id not in services.voices.voices.records:
            raise VoiceNotFound(f"{voice.name!r} has just been deleted", param="voice") from error
        raise StoreFailed(f"the recording of {voice.id} is gone from the disk", hint="audioctl doctor") from error
    except OSError as error:
        raise StoreFailed(
            f"the recording of {voice.id} cannot be read: {error.strerror}", hint="audioctl doctor"
        ) from error
