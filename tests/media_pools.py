"""A media pool for tests: watched for calls that block the event loop, and closed whatever happens."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blockbuster import blockbuster_ctx

from audiod.media.audio_memory import AudioMemory
from audiod.media.pool import MediaPool
from audiod.media.upload import Upload

LIMIT_BYTES = 2**30


@asynccontextmanager
async def media_pool(**settings: Any) -> AsyncIterator[MediaPool]:
    with blockbuster_ctx("audiod"):
        pool = MediaPool(**settings)
        try:
            yield pool
        finally:
            await pool.close()


async def decoded(pool: MediaPool, data: bytes, rate_hz: int = 16_000, max_audio_s: float = math.inf) -> bytes:
    """What `data` is as mono s16le, at the 16 kHz that transcribers get unless said otherwise."""
    with AudioMemory(LIMIT_BYTES).hold() as held, Upload(LIMIT_BYTES, held) as upload:
        upload.write(data)
        with await pool.decode(upload, rate_hz, max_audio_s) as pcm:
            assert os.fstat(pcm.fd).st_size == pcm.samples * 2
            assert pcm.duration_s == pcm.samples / rate_hz
            return os.pread(pcm.fd, pcm.samples * 2, 0)


def zygotes() -> list[int]:
    """Our media zygotes; a test run may have other children, such as a container that waits for its tests."""
    return [pid for pid in children(os.getpid()) if "audiod.media.process" in _command_line(pid)]


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
