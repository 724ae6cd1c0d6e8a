"""A chat endpoint for tests: a real server on a real socket that answers as the test has told it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import web

Said = list[tuple[int, str]]
"""Numbers and texts of the cues that were asked for."""


@dataclass
class Chat:
    """Answers with the steps of `script`, one for each request, then with good translations: "de:" before each text.

    Steps: `good`, `fenced`, `shuffled`, `truncated`, `merged`, `garbage`, `empty`, `other` (JSON, but no completion),
    `html`, `hang`, `hang up`, and a status, perhaps with seconds for Retry-After ("429 0").
    """

    url: str = ""
    script: list[str] = field(default_factory=list)
    asked: list[Said] = field(default_factory=list)
    systems: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        said = [(cue["id"], cue["text"]) for cue in json.loads(body["messages"][-1]["content"])["cues"]]
        assert body["model"] == "translator"
        self.asked.append(said)
        self.systems.append(body["messages"][0]["content"])
        self.headers.append(dict(request.headers))
        step = self.script.pop(0) if self.script else "good"
        match step.split():
            case ["hang"]:
                await asyncio.Event().wait()
            case ["hang", "up"]:
                assert request.transport is not None
                request.transport.abort()
            case ["html"]:
                return web.Response(text="<h1>It works!</h1>", content_type="text/html")
            case ["nested"]:
                return web.Response(text='{"zz": ' + "[" * 100_000, content_type="application/json")
            case ["other"]:
                return web.json_response({"choices": []})
            case [status, *after] if status.isdigit():
                headers = {"Retry-After": after[0]} if after else {}
                key = request.headers.get("Authorization", "")
                error = {"error": {"message": f"refused for {key}"}}
                return web.json_response(error, status=int(status), headers=headers)
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": _content(step, said)}}]})


def _content(step: str, said: Said) -> str:
    cues = [{"id": number, "text": f"de:{text}"} for number, text in said]
    match step:
        case "fenced":
            return f"Certainly!\n```json\n{json.dumps({'cues': cues}, indent=1)}\n```\nLet me know."
        case "shuffled":
            return json.dumps({"cues": cues[::-1]})
        case "truncated":
            return json.dumps({"cues": cues})[:-12]
        case "merged":
            return json.dumps([{"id": 1, "text": " --> ".join(cue["text"] for cue in cues)}])  # type: ignore[misc]
        case "garbage":
            return "1\n00:00:00,000 --> 99:99:99,999\n\nI am sorry, Dave."
        case "empty":
            return ""
    return json.dumps({"cues": cues})


@contextlib.contextmanager
def chatting() -> Iterator[Chat]:
    """A chat endpoint on a loop and a thread of its own."""
    chat, started, stop = Chat(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", chat.answer)])
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        chat.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        loops.append(asyncio.get_running_loop())
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield chat
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(30)
