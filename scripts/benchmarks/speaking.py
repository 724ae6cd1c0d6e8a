"""Speech on its way: the first byte in each format, and a piece of it from the worker to the client."""

from __future__ import annotations

import json
import statistics
import time

from benchmarks.daemons import STAMPED, daemon
from benchmarks.machine import Figures, spread
from benchmarks.programs import BIN, output_of

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")

LONG_TEXT = (
    "Every morning the old lighthouse keeper walked along the shore. He looked for what the sea had brought in the "
    "night. Sometimes it was a bottle, sometimes a plank from a ship that nobody remembered. He carried everything "
    "home, because he could not bear to leave things lying in the sand. In the evening he sat down by the fire and "
    "wrote a line about each of them into a thick book. When he had filled the last page, he began again at the first, "
    "and read aloud what he had found when he was young. His grandchildren listened, and never yet asked whether any "
    "of it had really happened to him. They knew."
)
"""600 characters in eight sentences."""


def first_byte(calls: int) -> Figures:
    """From a request for 600 characters of speech to the first byte of its audio, and to the last, in each format."""
    figures: Figures = {"targets": {}}
    with daemon() as one:
        for model in ("hibari", "kokoro-82m"):
            one.ask(model)
            figures[model] = {}
            for form in FORMATS:
                first, whole = [], []
                for _ in range(max(1, calls // 10) if model == "hibari" else 1):
                    asked = {"model": model, "input": LONG_TEXT, "response_format": form}
                    began = time.perf_counter()
                    one.connection.request(
                        "POST", "/v1/audio/speech", json.dumps(asked), {"Content-Type": "application/json"}
                    )
                    with one.connection.getresponse() as answer:
                        assert answer.status == 200, answer.read()
                        answer.read1(1)
                        first.append(time.perf_counter() - began)
                        answer.read()
                        whole.append(time.perf_counter() - began)
                figures[model][form] = {
                    "first_s": spread(first),
                    "whole_s": spread(whole),
                    "first_of_whole": round(statistics.median(first) / statistics.median(whole), 3),
                }
            worst = max(of["first_of_whole"] for of in figures[model].values())
            figures["targets"][f"{model}: first byte <= 1/3 of the whole, in all formats"] = worst <= 1 / 3
    return figures


def piece(calls: int) -> Figures:
    """From the worker's hands to the client's: half a second of speech as bytes, as an event, as a WebSocket frame.

    The worker stamps each piece with the host's clock, so this holds everything between: the worker's channel, the
    daemon, its socket, and the client's own reading. `added` is over plain bytes, with their p50.
    """
    figures: Figures = {"targets": {}}
    with daemon(stamped=True) as one:
        url = f"{one.address.scheme}://{one.address.netloc}"
        heard: dict[str, list[float]] = {"bytes": [], "events": [], "websocket": []}
        for _ in range(max(2, calls // 10)):
            for kind, found_ms in heard.items():
                found_ms += json.loads(output_of(BIN / "python", "-m", "benchmarks.inside.hear", url, kind, STAMPED))
    plain_ms = statistics.median(heard["bytes"])
    for kind, found_ms in heard.items():
        figures[kind] = {"ms": spread(found_ms, 3), "added_ms": round(statistics.median(found_ms) - plain_ms, 3)}
    figures["targets"]["websocket: p50 <= 1 ms"] = statistics.median(heard["websocket"]) <= 1
    return figures
