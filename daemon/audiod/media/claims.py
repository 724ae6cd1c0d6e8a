"""Refuses recordings for what their headers claim, and words the refusals, for the daemon and the decoder alike.

Decodes nothing.
"""

from __future__ import annotations

from audiod.media.riff import WaveHeader
from audioproto.errors import AudioTooLong, BadAudio


def check_wave(wave: WaveHeader, max_audio_s: float) -> None:
    """Raises BadAudio where nothing is there or the header promises more than is, and AudioTooLong."""
    if wave.is_truncated:
        if wave.claimed_s is None:
            raise BadAudio("the file is truncated: less audio is there than its header promises", param="file")
        raise truncated(wave.claimed_s, wave.found_s)
    if wave.found_bytes == 0:
        raise empty()
    if wave.claimed_s is not None and wave.claimed_s > max_audio_s:
        raise too_long(wave.claimed_s, max_audio_s)


def empty() -> BadAudio:
    return BadAudio("the file holds no audio: its length is zero", param="file")


def truncated(claimed_s: float, found_s: float) -> BadAudio:
    return BadAudio(
        f"the file is truncated: its header promises {claimed_s:.1f} s of audio, of which {found_s:.1f} s are there",
        param="file",
        hint="send the whole file; `ffprobe FILE` shows what it claims",
    )


def too_long(found_s: float, limit_s: float) -> AudioTooLong:
    return AudioTooLong(
        f"the recording lasts {found_s:.0f} s; the limit is {limit_s:.0f} s",
        param="file",
        hint="ffmpeg -i INPUT -f segment -segment_time 3600 -c copy PART%02d.EXT",
    )
