"""A client of /v1/audio/speech/stream for tests, on aiohttp's WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from daemons import Daemon
from scraping import until

LIMIT_S = 60.0


@dataclass
class Utterance:
    """What was received of one, up to its end frame."""

    header: dict[str, Any] = field(default_factory=dict)
    pcm: bytes = b""
    frames: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def audio_s(self) -> float:
        return len(self.pcm) / 48_000


class SpeechSocket:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def start(self, text: str | None = None, **more: object) -> None:
        fields = {"type": "start", "model": "hibari", "voice": "alloy"} | more
        await self.ws.send_json(fields if text is None else fields | {"input": text})

    async def text(self, text: str) -> None:
        await self.ws.send_json({"type": "input.text", "text": text})

    async def done(self) -> None:
        await self.ws.send_json({"type": "input.done"})

    async def cancel(self) -> None:
        await self.ws.send_json({"type": "cancel"})

    async def next(self) -> dict[str, Any] | bytes:
        """The next frame: JSON, or audio."""
        message = await self.ws.receive(LIMIT_S)
        if message.type is aiohttp.WSMsgType.TEXT:
            said: dict[str, Any] = json.loads(message.data)
            return said
        assert message.type is aiohttp.WSMsgType.BINARY, message
        audio: bytes = message.data
        return audio

    async def error(self) -> dict[str, Any]:
        said = await self.next()
        assert isinstance(said, dict)
        assert said["type"] == "error", said
        error: dict[str, Any] = said["error"]
        return error

    async def rest(self, so_far: Utterance | None = None) -> Utterance:
        """All up to the end frame."""
        heard = so_far or Utterance()
        while True:
            said = await self.next()
            if isinstance(said, bytes):
                assert heard.header, "audio before its header"
                heard.pcm += said
                heard.frames += 1
            elif said["type"] == "audio.start":
                heard.header = said
            elif said["type"] == "error":
                heard.errors.append(said["error"])
            else:
                assert said["type"] == "audio.end", said
                heard.end = said
                return heard

    async def closed(self) -> int | None:
        """Wait until the daemon has closed it; the code."""
        message = await self.ws.receive(LIMIT_S)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
        return self.ws.close_code


def _small_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One for which the kernel takes little that nobody reads."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    return made


@contextlib.asynccontextmanager
async def connected(daemon: Daemon, **headers: str) -> AsyncIterator[SpeechSocket]:
    url, connector = f"{daemon.url}/v1/audio/speech/stream", aiohttp.TCPConnector(socket_factory=_small_socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(url, headers=headers, max_msg_size=0) as ws,
    ):
        yield SpeechSocket(ws)


async def until_async(look: Callable[[], object]) -> None:
    """Ask a blocking question again and again until the answer is true."""
    await asyncio.to_thread(until, look)
