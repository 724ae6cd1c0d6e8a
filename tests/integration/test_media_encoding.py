"""PCM in, speech formats out: what is heard, how soon, and at which tempo, through real media processes."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator

import pytest

from audiod.media import riff
from audiod.media.formats import SpeechFormat
from audiod.media.pool import Encoder, MediaPool
from media_pools import decoded, media_pool, zygotes
from sounds import dominant_hz, s16, similarity, sweep, tone

BEGINNINGS = {
    SpeechFormat.MP3: (b"\xff\xf3", b"\xff\xf2"),  # a frame of MPEG-2 layer III at once, no tag before it
    SpeechFormat.OPUS: (b"OggS",),
    SpeechFormat.AAC: (b"\xff\xf1",),
    SpeechFormat.FLAC: (b"fLaC",),
    SpeechFormat.WAV: (b"RIFF",),
    SpeechFormat.PCM: (b"",),
}
PIECE_S = 0.1


@pytest.fixture
async def pool() -> AsyncIterator[MediaPool]:
    async with media_pool() as pool:
        yield pool


async def fed(encoder: Encoder, pcm: bytes, rate: int) -> list[bytes]:
    """What comes out for each tenth of a second that goes in, and at the end."""
    step = int(rate * PIECE_S) * 2
    pieces = [await encoder.feed(pcm[start : start + step]) for start in range(0, len(pcm), step)]
    return [*pieces, await encoder.finish()]


async def encoded(pool: MediaPool, form: SpeechFormat, pcm: bytes, rate: int, tempo: float = 1.0) -> bytes:
    async with pool.encoder(form, rate, tempo) as encoder:
        return b"".join(await fed(encoder, pcm, rate))


async def heard(pool: MediaPool, form: SpeechFormat, data: bytes) -> bytes:
    """What a client hears, as mono s16le at 16 kHz."""
    if form is SpeechFormat.PCM:
        data = riff.streaming_header() + data
    return await decoded(pool, data)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100])
@pytest.mark.parametrize("form", SpeechFormat)
async def test_what_is_encoded_is_what_is_heard(pool: MediaPool, form: SpeechFormat, rate: int) -> None:
    data = await encoded(pool, form, s16(sweep(3.0, rate)), rate)
    assert data.startswith(BEGINNINGS[form])
    pcm = await heard(pool, form, data)
    assert len(pcm) / 32_000 == pytest.approx(3.0, abs=0.1)  # codecs pad by a frame or two
    assert similarity(pcm, sweep(3.0, 16_000)) > 0.97


@pytest.mark.parametrize("form", [SpeechFormat.WAV, SpeechFormat.PCM, SpeechFormat.FLAC])
async def test_without_loss_means_bit_for_bit(pool: MediaPool, form: SpeechFormat) -> None:
    pcm = s16(sweep(1.0, 24_000))
    data = await encoded(pool, form, pcm, 24_000)
    if form is SpeechFormat.FLAC:
        assert len(await decoded(pool, data)) == 32_000
    else:
        assert data == (data[:44] if form is SpeechFormat.WAV else b"") + pcm


@pytest.mark.parametrize("form", SpeechFormat)
async def test_the_first_bytes_come_with_the_first_sound(pool: MediaPool, form: SpeechFormat) -> None:
    """The header may come at once; this asks for more than a header could hold, within 0.3 s of speech."""
    async with pool.encoder(form, 24_000) as encoder:
        pieces = await fed(encoder, s16(sweep(3.0, 24_000)), 24_000)
    assert sum(len(piece) for piece in pieces[:3]) > 500
    silent = max(len(list(run)) for run in _runs_of_nothing(pieces[:-1]))
    assert silent * PIECE_S <= 0.25, "then bytes keep coming"


def _runs_of_nothing(pieces: list[bytes]) -> list[list[bytes]]:
    runs: list[list[bytes]] = [[]]
    for piece in pieces:
        if piece:
            runs.append([])
        else:
            runs[-1].append(piece)
    return runs


async def test_a_wav_can_be_read_from_its_first_bytes_on(pool: MediaPool) -> None:
    """As Home Assistant and wyoming_openai do, with Python's `wave`, before the rest has come."""
    pcm = s16(tone(0.5, 24_000))
    async with pool.encoder(SpeechFormat.WAV, 24_000) as encoder:
        first = await encoder.feed(pcm)
        assert await encoder.feed(pcm) == pcm, "the header comes once"
    with wave.open(io.BytesIO(first)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (24_000, 1, 2)
        assert reader.readframes(len(pcm)) == pcm


async def test_wav_and_pcm_that_are_right_already_cost_no_process(pool: MediaPool) -> None:
    for form in (SpeechFormat.WAV, SpeechFormat.PCM):
        assert (await encoded(pool, form, bytes(4_800), 24_000)).endswith(bytes(4_800))
    assert zygotes() == []


@pytest.mark.parametrize("tempo", [0.25, 0.4, 0.5, 0.8, 1.25, 2.0, 3.0, 4.0])
async def test_tempo_changes_how_long_it_lasts_and_not_how_high_it_is(pool: MediaPool, tempo: float) -> None:
    pcm = await encoded(pool, SpeechFormat.PCM, s16(tone(4.0, 22_050)), 22_050, tempo)
    assert len(pcm) / 48_000 == pytest.approx(4.0 / tempo, rel=0.04)
    assert dominant_hz(pcm, 24_000) == pytest.approx(440.0, abs=4.0)


async def test_tempo_and_compression_go_together(pool: MediaPool) -> None:
    pcm = await heard(
        pool, SpeechFormat.MP3, await encoded(pool, SpeechFormat.MP3, s16(tone(4.0, 24_000)), 24_000, 2.0)
    )
    assert len(pcm) / 32_000 == pytest.approx(2.0, abs=0.15)
    assert dominant_hz(pcm, 16_000) == pytest.approx(440.0, abs=4.0)


async def test_large_and_empty_feeds_are_fine(pool: MediaPool) -> None:
    pcm = s16(sweep(30.0, 24_000))
    async with pool.encoder(SpeechFormat.FLAC, 24_000) as encoder:
        data = await encoder.feed(b"") + await encoder.feed(pcm) + await encoder.feed(b"") + await encoder.finish()
    assert len(await heard(pool, SpeechFormat.FLAC, data)) / 32_000 == pytest.approx(30.0, abs=0.01)


@pytest.mark.parametrize("form", SpeechFormat)
async def test_nothing_in_is_a_valid_nothing_out(pool: MediaPool, form: SpeechFormat) -> None:
    async with pool.encoder(form, 22_050) as encoder:
        data = await encoder.finish()
    assert len(data) == 44 if form is SpeechFormat.WAV else len(data) < 1_000


async def test_half_a_sample_is_a_mistake_of_ours(pool: MediaPool) -> None:
    async with pool.encoder(SpeechFormat.PCM, 24_000) as encoder:
        with pytest.raises(ValueError, match="half a sample"):
            await encoder.feed(b"123")


def test_every_format_has_its_content_type() -> None:
    assert {form.value: form.content_type for form in SpeechFormat} == {
        "mp3": "audio/mpeg",
        "opus": "audio/opus",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "wav": "audio/wav",
        "pcm": "audio/pcm",
    }
