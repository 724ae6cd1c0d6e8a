"""Peak memory of long audio.

python -m benchmarks.inside.hour ENGINE DIRECTORY WAV MINUTES
"""

from __future__ import annotations

import sys
import time

from benchmarks.inside.common import Audio, forget_peak, ready, samples, say, status_mb


def main(name: str, directory: str, file: str, minutes: int) -> None:
    """A recording again and again. The samples themselves are in the memory, four bytes each."""
    import numpy as np

    from audioproto.worker import Transcribe

    def transcribed(audio: Audio) -> int:
        return sum(1 for _ in it.transcribe(audio, Transcribe(0, audio.size), lambda: False))

    it = ready(name, directory)
    once = samples(file)
    transcribed(once)
    audio = np.resize(once, minutes * 60 * 16_000)
    before = status_mb("VmRSS")
    forget_peak()
    began = time.perf_counter()
    segments = transcribed(audio)
    say(
        {
            "minutes": minutes,
            "segments": segments,
            "took_s": round(time.perf_counter() - began, 2),
            "samples_mb": round(audio.nbytes / 1e6, 1),
            "rss_before_mb": before,
            "peak_rss_mb": status_mb("VmHWM"),
        }
    )


if __name__ == "__main__":
    name, directory, file, minutes = sys.argv[1:]
    main(name, directory, file, int(minutes))
