"""The other side of audioctl for tests: a small aiohttp server, and audioctl as a process that talks to it.

Answers with what a test puts in; the daemon's own server is tested against the real daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from daemons import TOP

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers on a Unix socket (control) or a TCP port (the API) with what a test puts into `answers`, by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.bodies: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.left = asyncio.Event()
        self.url = ""
        self.socket = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        try:
            return await self.answers[request.path](request)
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise

    def says(self, path: str, body: msgspec.Struct | bytes | dict[str, Any], status: int = 200) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.bodies.append((request.path, await request.read()))
            encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
            return web.Response(body=encoded, status=status, content_type="application/json")

        self.answers[path] = answer

    def streams(self, path: str, *lines: msgspec.Struct, then: asyncio.Event | None = None) -> None:
        """All lines but the last at once, and the last when `then` is set, if given."""

        async def answer(request: web.Request) -> web.StreamResponse:
            self.bodies.append((request.path, await request.read()))
            response = web.StreamResponse()
            await response.prepare(request)
            for line in lines[:-1]:
                await response.write(msgspec.json.encode(line) + b"\n")
            if then is not None:
                await then.wait()
            await response.write(msgspec.json.encode(lines[-1]) + b"\n")
            return response

        self.answers[path] = answer


@contextlib.asynccontextmanager
async def serving(*, socket: str = "") -> AsyncIterator[Server]:
    """A Server on that Unix socket, or else on a free TCP port."""
    server = Server()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", server.answer)
    # A caller who hangs up ends its handler, so that a test can see it leave.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        if socket:
            await web.UnixSite(runner, socket).start()
            server.socket = socket
        else:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def environment(**more: str) -> dict[str, str]:
    """That of the tests, less the settings of whoever runs them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOD_") and name != "COLUMNS"}
    return kept | {"PYTHONPATH": f"{TOP / 'ctl'}:{TOP / 'daemon'}", "PYTHONWARNINGS": "error"} | more


class Ended(msgspec.Struct):
    status: int
    out: str
    err: str


async def start(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audioctl", *arguments),
        env=environment(**settings),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )


async def audioctl(*arguments: str, stdin: bytes = b"", **settings: str) -> Ended:
    process = await start(*arguments, **settings)
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode()


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
