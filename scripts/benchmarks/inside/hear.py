"""The client of `piece`, in audiod's own environment: the age in ms of each piece when it was here, but for the first.

python -m benchmarks.inside.hear URL bytes|events|websocket MODEL
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from typing import Any

import aiohttp


async def listen(url: str, kind: str, wanted: dict[str, Any]) -> list[float]:
    ages_ms: list[float] = []

    def note(pcm: bytes) -> None:
        made_ns = sum((pcm[at] | pcm[at + 1] << 8) << 15 * (at // 2) for at in range(0, 10, 2))
        ages_ms.append((time.monotonic_ns() - made_ns) / 1e6)

    async with aiohttp.ClientSession() as session:
        if kind == "websocket":
            async with session.ws_connect(f"{url}/v1/audio/speech/stream") as ws:
                await ws.send_json(wanted | {"type": "start"})
                async for message in ws:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        note(message.data)
                    elif '"audio.end"' in message.data:
                        break
            return ages_ms
        wanted = wanted | {"stream_format": "sse" if kind == "events" else "audio"}
        async with session.post(f"{url}/v1/audio/speech", json=wanted, read_bufsize=2**20) as answer:
            if kind == "events":
                async for line in answer.content:
                    if b"speech.audio.delta" in line:
                        note(base64.b64decode(json.loads(line.removeprefix(b"data: "))["audio"]))
            else:
                for _ in range(int(wanted["input"])):
                    note(await answer.content.readexactly(24_000))
    return ages_ms


def main(url: str, kind: str, model: str) -> None:
    wanted = {"model": model, "input": "50", "response_format": "pcm"}
    print(json.dumps(asyncio.run(listen(url, kind, wanted))[5:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
