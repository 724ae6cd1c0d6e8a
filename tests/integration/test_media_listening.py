"""Ears: live audio of every format through media processes, with and without speech detection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiod.media.live import LiveFormat
from audiod.media.messages import HEAR_BYTES
from audiod.media.pool import Ear
from audiod.media.turns import FRAME_SAMPLES, SpeechStarted, SpeechStopped, TurnDetector, TurnSettings
from audioproto.errors import AudiodError
from media_pools import children, media_pool, zygotes
from realtime import SILENCE, sentence
from sounds import muxed, s16, similarity, sweep
from watching import kill

CODED = {LiveFormat.PCMU: ("mulaw", "pcm_mulaw"), LiveFormat.PCMA: ("alaw", "pcm_alaw")}


async def hear(ear: Ear, audio: bytes, piece_bytes: int = HEAR_BYTES) -> tuple[bytes, list[float]]:
    """All of it, to the end."""
    pcm, speech = bytearray(), []
    for start in range(0, len(audio), piece_bytes):
        heard = await ear.hear(audio[start : start + piece_bytes])
        pcm += heard.pcm
        speech += heard.speech
    rest = await ear.flush()
    return bytes(pcm + rest.pcm), speech + rest.speech


def sound(form: LiveFormat) -> bytes:
    """A sweep of 2 s as it would be sent."""
    if form is LiveFormat.PCM:
        return s16(sweep(2, 24_000))
    return muxed(*CODED[form], sweep(2, 8_000), 8_000)


@pytest.mark.parametrize("form", LiveFormat)
@pytest.mark.parametrize("piece_bytes", [HEAR_BYTES, 4801, 160])
async def test_what_is_heard_is_what_was_said(form: LiveFormat, piece_bytes: int) -> None:
    async with media_pool() as pool, pool.ear(form, detect=False) as ear:
        pcm, speech = await hear(ear, sound(form), piece_bytes)
        assert len(pcm) == form.heard_bytes(len(sound(form))) == 64_000
        assert similarity(pcm, sweep(2, 16_000)) > 0.999
        assert speech == []
        again, _ = await hear(ear, sound(form), piece_bytes)
        assert again == pcm, "after a flush everything begins anew"


@pytest.mark.parametrize("piece_bytes", [HEAR_BYTES, 4801])
async def test_speech_is_told_from_silence_however_it_is_cut(piece_bytes: int) -> None:
    async with media_pool() as pool, pool.ear(LiveFormat.PCM, detect=True) as ear:
        pcm, speech = await hear(ear, SILENCE + sentence() + SILENCE, piece_bytes)
        assert len(speech) == len(pcm) // 2 // FRAME_SAMPLES
        detector = TurnDetector(TurnSettings(prefix_padding_ms=0))
        started, stopped = filter(None, map(detector.hear, speech))
        assert isinstance(started, SpeechStarted)
        assert isinstance(stopped, SpeechStopped)
        loud = [at for at in range(0, len(pcm), 640) if np.frombuffer(pcm[at : at + 640], "<i2").std() > 500]
        assert started.at / 16_000 == pytest.approx(loud[0] / 32_000, abs=0.1)
        assert stopped.at / 16_000 == pytest.approx(loud[-1] / 32_000 + 0.5, abs=0.2)


async def test_noise_is_no_speech() -> None:
    noise = (np.random.default_rng(7).standard_normal(24_000 * 5) * 5000).astype("<i2").tobytes()
    async with media_pool() as pool, pool.ear(LiveFormat.PCM, detect=True) as ear:
        _, speech = await hear(ear, noise)
        assert len(speech) > 150
        assert max(speech) < 0.3


async def test_many_ears_hear_apart() -> None:
    async with (
        media_pool(max_jobs=1) as pool,
        pool.ear(LiveFormat.PCM, True) as one,
        pool.ear(LiveFormat.PCM, True) as two,
    ):
        alone = await hear(one, sentence())
        mixed = [await one.hear(sentence()[:HEAR_BYTES]), await two.hear(SILENCE[:HEAR_BYTES])]
        assert mixed[1].pcm.strip(b"\0") == b""
        assert await hear(two, sentence()) != alone, "each goes on from what it has heard itself"


async def test_an_ear_that_dies_says_so_and_is_counted() -> None:
    failures: list[tuple[str, str]] = []
    async with media_pool() as pool:
        pool.on_failure = lambda task, reason: failures.append((task, reason))
        async with pool.ear(LiveFormat.PCM, detect=False) as ear:
            await ear.hear(SILENCE[:HEAR_BYTES])
            (zygote,) = zygotes()
            kill(*children(zygote))
            with pytest.raises(AudiodError, match="ended"):
                await ear.hear(SILENCE[:HEAR_BYTES])
        assert failures == [("listen", "crashed")]
        async with pool.ear(LiveFormat.PCM, detect=False) as ear:
            assert await ear.hear(SILENCE[:HEAR_BYTES])


async def test_who_listens_has_no_rights_and_one_thread() -> None:
    async with media_pool() as pool, pool.ear(LiveFormat.PCM, detect=True) as ear:
        await hear(ear, sentence())
        (zygote,) = zygotes()
        listening, _ = sorted(children(zygote))
        assert len(list(Path(f"/proc/{listening}/task").iterdir())) == 1
        limits = Path(f"/proc/{listening}/limits").read_text().splitlines()
        (files,) = [line for line in limits if line.startswith("Max open files")]
        assert files.split()[3:5] == ["0", "0"]
