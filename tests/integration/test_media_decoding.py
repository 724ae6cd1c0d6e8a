"""Uploads in, PCM out: every format, wrong and hostile files, through real media processes."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from audiod.media.audio_memory import AudioMemory
from audiod.media.pool import MediaPool
from audiod.media.upload import Upload
from audioproto.errors import AudioTooLong, BadAudio, QueueFull, UploadTooLarge
from daemons import AUDIO
from media_pools import LIMIT_BYTES, decoded, media_pool, zygotes
from sounds import muxed, s16, similarity, sweep, tone, wav

SECONDS = 3.0
MAX_AUDIO_S = 60.0


@pytest.fixture
async def pool() -> AsyncIterator[MediaPool]:
    async with media_pool(max_audio_s=MAX_AUDIO_S, decode_timeout_s=20.0) as pool:
        yield pool


def file(container: str, codec: str, rate: int, **how: object) -> Callable[[], bytes]:
    return lambda: muxed(container, codec, sweep(SECONDS, rate), rate, **how)  # type: ignore[arg-type]


def wave(encoding: str, rate: int, channels: int = 1) -> Callable[[], bytes]:
    return lambda: wav(sweep(SECONDS, rate), rate, encoding, channels=channels)


FORMATS: dict[str, Callable[[], bytes]] = {
    "wav s16 16k": wave("s16", 16_000),
    "wav s16 44.1k stereo": wave("s16", 44_100, channels=2),
    "wav s16 11025": wave("s16", 11_025),
    "wav u8 8k": wave("u8", 8_000),
    "wav s24 96k": wave("s24", 96_000),
    "wav s32 192k": wave("s32", 192_000),
    "wav f32 48k": wave("f32", 48_000),
    "wav f64 16k": wave("f64", 16_000),
    "wav alaw 8k": wave("alaw", 8_000),
    "wav ulaw 8k": wave("ulaw", 8_000),
    "wav 12 channels": wave("s16", 16_000, channels=12),
    "wav 5.1": file("wav", "pcm_s16le", 48_000, layout="5.1"),
    "wav adpcm": file("wav", "adpcm_ima_wav", 16_000),
    "w64": file("w64", "pcm_s16le", 16_000),
    "aiff": file("aiff", "pcm_s16be", 22_050),
    "au": file("au", "pcm_s16be", 16_000),
    "caf": file("caf", "pcm_s16le", 16_000),
    "flac": file("flac", "flac", 16_000),
    "flac 96k stereo": file("flac", "flac", 96_000, layout="stereo"),
    "mp3": file("mp3", "libmp3lame", 44_100, layout="stereo"),
    "mp3 16k": file("mp3", "libmp3lame", 16_000),
    "mp3 without a tag": file("mp3", "libmp3lame", 24_000, options={"write_xing": "0", "id3v2_version": "0"}),
    "ogg vorbis": file("ogg", "vorbis", 44_100, layout="stereo", codec_options={"strict": "experimental"}),
    "ogg opus": file("ogg", "libopus", 48_000),
    "ogg flac": file("ogg", "flac", 16_000),
    "m4a": file("ipod", "aac", 44_100),
    "m4a with its index first": file("ipod", "aac", 44_100, options={"moov_size": "20000"}),
    "m4a alac": file("ipod", "alac", 44_100),
    "mp4 in fragments": file("mp4", "aac", 48_000, options={"movflags": "frag_keyframe+empty_moov"}),
    "mp4 with video": file("mp4", "aac", 48_000, video="libx264"),
    "webm": file("webm", "libopus", 48_000),
    "webm live": file("webm", "libopus", 48_000, options={"live": "1"}),
    "webm with video": file("webm", "libopus", 48_000, video="libvpx"),
    "matroska": file("matroska", "aac", 48_000),
    "mpeg with video": file("mpeg", "mp2", 48_000, video="mpeg2video"),
    "aac adts": file("adts", "aac", 16_000),
}


@pytest.mark.parametrize("name", FORMATS)
async def test_a_file_of_any_format_sounds_as_it_was(pool: MediaPool, name: str) -> None:
    pcm = await decoded(pool, FORMATS[name]())
    assert len(pcm) / 32_000 == pytest.approx(SECONDS, abs=0.12)  # codecs pad by a few frames
    assert similarity(pcm, sweep(SECONDS, 16_000)) > 0.95


async def test_a_wav_that_is_right_already_is_taken_bit_for_bit_and_without_a_process(pool: MediaPool) -> None:
    jfk = (AUDIO / "jfk.wav").read_bytes()
    at = jfk.index(b"data") + 8
    assert await decoded(pool, jfk) == jfk[at:]
    assert zygotes() == []


@pytest.mark.parametrize("name", ["wav s16 16k", "wav s16 44.1k stereo", "flac 96k stereo"])
async def test_at_another_rate_a_file_sounds_as_it_was(pool: MediaPool, name: str) -> None:
    pcm = await decoded(pool, FORMATS[name](), 48_000)
    assert len(pcm) / 96_000 == pytest.approx(SECONDS, abs=0.12)
    assert similarity(pcm, sweep(SECONDS, 48_000)) > 0.95


async def test_a_wav_that_has_the_other_rate_already_is_taken_bit_for_bit(pool: MediaPool) -> None:
    sound = sweep(1.0, 48_000)
    assert await decoded(pool, wav(sound, 48_000), 48_000) == s16(sound)
    assert zygotes() == []


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
async def test_one_file_may_have_a_limit_of_its_own(pool: MediaPool, rate_hz: int) -> None:
    with pytest.raises(AudioTooLong, match="the limit is 2 s"):
        await decoded(pool, wav(sweep(SECONDS, 16_000), 16_000), rate_hz, 2.0)
    assert len(await decoded(pool, wav(sweep(1.0, 16_000), 16_000), rate_hz, 2.0)) == 2 * rate_hz


async def test_only_the_samples_of_a_wav_are_audio(pool: MediaPool) -> None:
    sound = sweep(1.0, 16_000)
    notes = struct.pack("<4sI", b"LIST", 101) + b"INFO" + bytes(98)
    assert await decoded(pool, wav(sound, 16_000, before_data=notes, after_data=notes)) == s16(sound)


@pytest.mark.parametrize("rate", [16_000, 8_000])
@pytest.mark.parametrize("claimed", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
async def test_a_wav_written_to_a_pipe_has_no_length_and_is_read_to_its_end(
    pool: MediaPool, claimed: int, rate: int
) -> None:
    sound = sweep(1.0, rate)
    pcm = await decoded(pool, wav(sound, rate, claimed_bytes=claimed))
    assert len(pcm) / 32_000 == pytest.approx(1.0, abs=0.01)
    assert similarity(pcm, sweep(1.0, 16_000)) > 0.98


@pytest.mark.parametrize("encoding", ["f32", "f64"])
async def test_what_is_no_number_is_silence_and_harms_nothing_around_it(pool: MediaPool, encoding: str) -> None:
    sound = sweep(1.0, 16_000)
    broken = sound.copy()
    broken[4_000:4_100] = np.nan
    broken[8_000], broken[8_001], broken[12_000] = np.inf, -np.inf, 1e38 * 3
    pcm = np.frombuffer(await decoded(pool, wav(broken, 16_000, encoding)), "<i2")
    expected = np.frombuffer(s16(np.where(broken == sound, sound, 0.0)), "<i2")
    assert np.max(np.abs(pcm.astype(int) - expected)) <= 1


async def test_channels_are_mixed(pool: MediaPool) -> None:
    left, right = tone(1.0, 16_000, 400), tone(1.0, 16_000, 1_300)
    both = np.stack([left, right], axis=1).ravel()
    stereo = bytearray(wav(both, 16_000))
    stereo[22:24], stereo[28:32], stereo[32:34] = b"\2\0", struct.pack("<I", 64_000), b"\4\0"
    pcm = await decoded(pool, bytes(stereo))
    assert similarity(pcm, (left + right) / 2) > 0.999


async def test_a_tag_in_an_old_character_set_is_no_obstacle(pool: MediaPool) -> None:
    tagged = muxed("mp3", "libmp3lame", sweep(1.0, 16_000), 16_000, metadata={"title": "Zuerich" * 20})
    latin = tagged.replace(b"Zuerich", b"Z\xfcr\xefch\xff")
    assert latin != tagged
    assert len(await decoded(pool, latin)) > 31_000


async def test_a_damaged_stretch_does_not_cost_the_rest(pool: MediaPool) -> None:
    data = bytearray(muxed("mp3", "libmp3lame", sweep(SECONDS, 16_000), 16_000))
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    assert len(await decoded(pool, bytes(data))) / 32_000 == pytest.approx(SECONDS, abs=0.5)


async def test_one_upload_can_be_decoded_twice(pool: MediaPool) -> None:
    with AudioMemory(LIMIT_BYTES).hold() as held, Upload(LIMIT_BYTES, held) as upload:
        upload.write(FORMATS["flac"]())
        with await pool.decode(upload) as first, await pool.decode(upload) as second:
            assert os.pread(first.fd, 10**6, 0) == os.pread(second.fd, 10**6, 0) != b""


async def test_the_pcm_is_sealed(pool: MediaPool) -> None:
    for data in (wav(sweep(1.0, 16_000), 16_000), FORMATS["flac"]()):
        with AudioMemory(LIMIT_BYTES).hold() as held, Upload(LIMIT_BYTES, held) as upload:
            upload.write(data)
            with await pool.decode(upload) as pcm:
                with pytest.raises(PermissionError):
                    os.pwrite(pcm.fd, b"x", 0)
                with pytest.raises(PermissionError):
                    os.ftruncate(pcm.fd, 0)


def test_an_upload_is_cut_off_at_its_limit() -> None:
    with AudioMemory(LIMIT_BYTES).hold() as held, Upload(10, held) as upload:
        upload.write(b"12345")
        with pytest.raises(UploadTooLarge):
            upload.write(b"678901")
        assert upload.size == 5
        upload.write(b"67890")
        assert os.pread(upload.fd, 20, 0) == b"1234567890"


# --- files that are refused -----------------------------------------------------------------------------------------


def cut(name: str, share: float) -> Callable[[], bytes]:
    def cut_file() -> bytes:
        whole = FORMATS[name]()
        return whole[: int(len(whole) * share)]

    return cut_file


def patched_wav(**fields: int) -> Callable[[], bytes]:
    places = {"channels": (22, "<H"), "rate": (24, "<I"), "block": (32, "<H"), "bits": (34, "<H")}

    def make() -> bytes:
        data = bytearray(wav(sweep(1.0, 8_000), 8_000))
        for name, value in fields.items():
            struct.pack_into(places[name][1], data, places[name][0], value)
        return bytes(data)

    return make


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "one byte": (lambda: b"R", "no audio in a known format"),
    "text": (lambda: b"And so, my fellow Americans. " * 100, "no audio in a known format"),
    "zeros": (lambda: bytes(100_000), "no audio in a known format"),
    "noise": (lambda: random.Random(1).randbytes(200_000), "no audio in a known format"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(1_000), "no audio in a known format"),
    "gif": (lambda: b"GIF89a" + bytes(1_000), "no audio in a known format"),
    "subtitles": (lambda: b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n", "no audio in a known format"),
    "vtt": (lambda: b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n\n", "no audio in a known format"),
    "program": (lambda: b"\x7fELF" + bytes(1_000), "no audio in a known format"),
    "video only": (file("mp4", "", 48_000, video="libx264"), "no audio stream"),
    "wav without samples": (lambda: wav(sweep(0.0, 8_000), 8_000), "length is zero"),
    "plain wav without samples": (lambda: wav(sweep(0.0, 16_000), 16_000), "length is zero"),
    "wav header only": (lambda: wav(sweep(1.0, 8_000), 8_000)[:44], "promises 1.0 s of audio, of which 0.0 s"),
    "wav header cut": (lambda: wav(sweep(1.0, 8_000), 8_000)[:30], "damaged or truncated"),
    "wav cut": (cut("wav s16 44.1k stereo", 0.5), "promises 3.0 s of audio, of which 1.5 s"),
    "plain wav cut": (cut("wav s16 16k", 0.5), "promises 3.0 s of audio, of which 1.5 s"),
    "wav cut by two bytes": (lambda: wav(sweep(1.0, 16_000), 16_000)[:-2], "truncated"),
    "wav claiming ten hours": (
        lambda: wav(sweep(1.0, 16_000), 16_000, claimed_bytes=36_000 * 32_000),
        "promises 36000.0 s of audio, of which 1.0 s",
    ),
    "wav at 1 Hz": (patched_wav(rate=1, block=30_000), "sample rate of 1 Hz"),
    "wav of no channels": (patched_wav(channels=0), "header is damaged"),
    "wav of 65535 channels": (patched_wav(channels=65_535), "header is damaged"),
    "flac cut": (cut("flac", 0.4), "promises 3.0 s"),
    "mp3 cut": (cut("mp3", 0.4), "promises 3.0 s"),
    "webm cut": (cut("webm", 0.4), "promises 3.0 s"),
    "aiff cut": (cut("aiff", 0.4), "promises 3.0 s"),
    "m4a cut": (cut("m4a", 0.5), "damaged or truncated"),
    "m4a cut behind its index": (cut("m4a with its index first", 0.6), "promises 3.0 s"),
    "ogg header only": (lambda: FORMATS["ogg opus"]()[:200], "damaged or truncated"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_file_that_cannot_be_used_is_the_callers_fault_and_says_why(pool: MediaPool, name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(BadAudio, match=reason) as refused:
        await decoded(pool, make())
    assert refused.value.http_status == 400
    assert len(await decoded(pool, FORMATS["flac"]())) > 90_000, "the next job works"


@pytest.mark.parametrize("name", ["flac", "mp3", "m4a", "webm", "ogg opus", "wav s16 16k", "wav u8 8k", "aac adts"])
async def test_a_recording_over_the_limit_is_refused(name: str) -> None:
    async with media_pool(max_audio_s=SECONDS - 0.5) as pool:
        with pytest.raises(AudioTooLong, match="the limit is 2 s"):
            await decoded(pool, FORMATS[name]())


async def test_a_wav_without_a_length_is_held_to_the_limit_too() -> None:
    async with media_pool(max_audio_s=1.0) as pool:
        for rate in (8_000, 16_000):
            with pytest.raises(AudioTooLong):
                await decoded(pool, wav(sweep(2.0, rate), rate, claimed_bytes=0xFFFF_FFFF))


async def test_a_file_that_names_others_has_nothing_opened(pool: MediaPool, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(sweep(1.0, 16_000), 16_000))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        for place in (str(secret), f"file://{secret}", f"http://127.0.0.1:{port}/x.wav", f"concat:{secret}"):
            dash = f"<MPD><Period><AdaptationSet><Representation><BaseURL>{place}</BaseURL></Representation></MPD>"
            for reference in (
                f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{place}\n#EXT-X-ENDLIST\n",
                f"ffconcat version 1.0\nfile '{place}'\n",
                f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
                f"[playlist]\nFile1={place}\n",
                f'<?xml version="1.0"?>{dash}',
                place,
            ):
                with pytest.raises(BadAudio, match="no audio in a known format"):
                    await decoded(pool, reference.encode())
        with pytest.raises(BlockingIOError):
            listener.accept()


SMALL = {name: make for name, make in FORMATS.items() if "k" not in name.split()[-1] or name == "wav f32 48k"}
CASES_EACH = 4


@pytest.mark.parametrize("name", SMALL)
async def test_a_mutated_file_is_decoded_or_refused_and_nothing_else(pool: MediaPool, name: str) -> None:
    chance = random.Random(name)
    whole = SMALL[name]()
    for _ in range(CASES_EACH):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30, 300])):
            # Half of the damage goes to where the headers are.
            at = chance.randrange(chance.choice([min(300, len(data)), len(data)]))
            data[at] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            pcm = await decoded(pool, bytes(data))
        except (BadAudio, AudioTooLong) as refusal:
            refused = refusal.message
            assert refused
        else:
            assert 0 < len(pcm) <= MAX_AUDIO_S * 32_000


# --- how much is held -----------------------------------------------------------------------------------------------


async def test_pcm_is_held_exactly_while_it_is_open(pool: MediaPool) -> None:
    memory = AudioMemory(LIMIT_BYTES)
    for name in ("flac", "mp3"):
        with memory.hold() as held, Upload(LIMIT_BYTES, held) as upload:
            upload.write(FORMATS[name]())
            with await pool.decode(upload) as pcm:
                assert memory.held_bytes == upload.size + pcm.samples * 2
            assert memory.held_bytes == upload.size
        assert memory.held_bytes == 0


async def test_a_file_that_grows_is_stopped_when_there_is_no_more_room() -> None:
    """Ten minutes of silence are 0.1 MB as FLAC and 19 MB decoded; it never held more than there was."""
    silence = muxed("flac", "flac", np.zeros(600 * 16_000), 16_000)
    memory = AudioMemory(10_000_000)
    async with media_pool() as pool:
        with memory.hold() as held, memory.hold() as other, Upload(LIMIT_BYTES, held) as upload:
            upload.write(silence)
            with pytest.raises(UploadTooLarge):
                await pool.decode(upload)
            assert memory.held_bytes == len(silence), "and all of it is given back"
            memory.limit_bytes = 30_000_000
            other.reserve(20_000_000)
            with pytest.raises(QueueFull):
                await pool.decode(upload)
            other.give_back(20_000_000)
            with await pool.decode(upload) as pcm:
                assert pcm.duration_s == 600
                assert memory.held_bytes == len(silence) + 600 * 32_000


async def test_wav_that_is_only_copied_is_held_as_well(pool: MediaPool) -> None:
    memory = AudioMemory(3_000_000)
    with memory.hold() as held, Upload(LIMIT_BYTES, held) as upload:
        upload.write(wav(np.zeros(50 * 16_000), 16_000))
        with pytest.raises(UploadTooLarge):
            await pool.decode(upload)
        assert memory.held_bytes == upload.size
