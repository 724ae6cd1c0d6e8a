"""An engine coming up: times and memory between the steps that it says it takes.

python -m benchmarks.inside.up ENGINE DIRECTORY OPTIONS
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from benchmarks.inside.common import engine_of, say, status_mb


def main(name: str, directory: str, options: dict[str, Any]) -> None:
    steps: list[tuple[str, float, float]] = []
    it = engine_of(name, directory, **options)
    it.on_progress = lambda message: steps.append((message, time.perf_counter(), status_mb("VmRSS")))
    it.prepare()
    it.load()
    it.warm()
    it.progress("end")
    began = {message.partition(" ")[0]: (at, mb) for message, at, mb in steps}
    say(
        {
            "import_s": round(began["reading"][0] - began["importing"][0], 3),
            "imported_rss_mb": began["reading"][1],
            "read_s": round(began["moving"][0] - began["reading"][0], 3),
            "load_and_warm_s": round(began["end"][0] - began["moving"][0], 3),
            "loaded_rss_mb": began["end"][1],
            "peak_rss_mb": status_mb("VmHWM"),
        }
    )


if __name__ == "__main__":
    name, directory, options = sys.argv[1:]
    main(name, directory, json.loads(options))
