"""An engine alone, for `latency`: one job for each line read, its seconds printed.

python -m benchmarks.inside.alone ENGINE MODEL_DIR WAV SENTENCE
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.inside.common import engine_of, samples


def main(engine: str, model_dir: str, recording: str, sentence: str) -> None:
    from audioproto.worker import Synthesize, Transcribe
    from audioworker.engine import Transcriber

    it = engine_of(engine, model_dir)
    it.prepare()
    it.load()
    audio = samples(recording)
    for _ in sys.stdin:
        began = time.perf_counter()
        output: Any
        if isinstance(it, Transcriber):
            output = it.transcribe(audio, Transcribe(0, audio.size), lambda: False)
        else:
            output = it.synthesize(Synthesize(0, sentence), lambda recording: audio, lambda: False)
        for _ in output:
            pass
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
