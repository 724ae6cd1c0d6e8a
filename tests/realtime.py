"""A Realtime client that says every frame itself, for what an SDK would not do; and recordings as it streams them."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from daemons import AUDIO, Daemon

SILENCE = bytes(48_000)
"""One second at 24 kHz."""

CHUNK_BYTES = 9_600
"""200 ms at 24 kHz."""

MODEL = "whisper-base"

ENGLISH = {"model": MODEL, "language": "en"}
"""Or the model would listen to every turn twice, at first for its language."""

Event = dict[str, Any]


def pcm_at(rate_hz: int, file: Path) -> bytes:
    """A recording as mono s16le."""
    resampler = av.AudioResampler("s16", "mono", rate_hz)
    with av.open(str(file)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    frames += resampler.resample(None)
    return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)


def speech() -> bytes:
    """11 s in pieces: "And so, my fellow Americans, ask not what your country can do for you ..."."""
    return pcm_at(24_000, AUDIO / "jfk.wav")


def sentence() -> bytes:
    """3.5 s without a pause: "Concord returned to its place amidst the tents."."""
    return pcm_at(24_000, AUDIO / "librispeech-6930-75918-0000.wav")


class RealtimeClient:
    """One connection. `seen` has every event that was received."""

    def __init__(self, socket: Connection) -> None:
        self.socket = socket
        self.seen: list[Event] = []

    def send(self, type_: str, **keys: object) -> None:
        self.socket.send(json.dumps({"type": type_} | keys))

    def exchange(self, frame: str) -> Event:
        """Send it, and return what comes next."""
        self.socket.send(frame)
        return self.receive()

    def set(self, **sound: object) -> Event:
        """Change audio.input, and return the session that is then in force."""
        self.send("session.update", session={"type": "transcription", "audio": {"input": sound}})
        session: Event = self.until("session.updated")["session"]
        return session

    def append(self, audio: bytes) -> None:
        for start in range(0, len(audio), CHUNK_BYTES):
            piece = base64.b64encode(audio[start : start + CHUNK_BYTES]).decode()
            self.send("input_audio_buffer.append", audio=piece)

    def commit(self, **keys: object) -> None:
        self.send("input_audio_buffer.commit", **keys)

    def receive(self, timeout_s: float = 60.0) -> Event:
        event: Event = json.loads(self.socket.recv(timeout_s))
        self.seen.append(event)
        return event

    def until(self, type_: str) -> Event:
        """The next event of the type, which ends with the name given."""
        while not (event := self.receive())["type"].endswith(type_):
            assert event["type"] != "error" or type_ == "error", event
        return event

    def settle(self) -> None:
        """All that was sent is dealt with, except for transcripts. Forgets the audio that is in no turn."""
        self.send("input_audio_buffer.clear")
        self.until("input_audio_buffer.cleared")

    def types(self) -> list[str]:
        return [event["type"].rpartition(".")[2] for event in self.seen]

    def of(self, item_id: str) -> list[Event]:
        """The events about an item."""
        return [event for event in self.seen if item_id in (event.get("item_id"), event.get("item", {}).get("id"))]


@contextlib.contextmanager
def realtime(daemon: Daemon, query: str = "intent=transcription", **options: Any) -> Iterator[RealtimeClient]:
    """A client that is connected; what comes first is yet to be received."""
    url = daemon.url.replace("http", "ws", 1) + "/v1/realtime?" + query
    with connect(url, max_size=None, compression=None, proxy=None, **options) as socket:
        yield RealtimeClient(socket)


@contextlib.contextmanager
def session(daemon: Daemon, query: str = "intent=transcription", **sound: object) -> Iterator[RealtimeClient]:
    """A client whose session is set."""
    with realtime(daemon, query) as client:
        assert client.receive()["type"] == "session.created"
        client.set(**({"turn_detection": None, "transcription": ENGLISH} | sound))
        yield client
