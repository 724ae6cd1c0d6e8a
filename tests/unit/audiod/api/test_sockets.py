"""WebSockets: kept open by pings, closed by the daemon's stop between two pieces of work, never in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from audiod.api import sockets
from audiod.api.services import SERVICES, Services
from audiod.api.sockets import Socket
from audiod.config import Config
from audioproto.errors import BadRequest

Serve = Callable[[Socket], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[tuple[TestClient[web.Request, web.Application], Services]]:
    """What `accepted` uses of the services is no more than this."""
    services = cast(Services, SimpleNamespace(config=Config(), sockets=set(), stopping=False))

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            async with sockets.accepted(request, 1000) as socket:
                await serve(socket)
        except BadRequest as error:
            return web.Response(status=error.http_status)
        return socket.ws

    app = web.Application()
    app[SERVICES] = services
    app.router.add_get("/", handle)
    async with TestClient(TestServer(app)) as client:
        yield client, services


async def echo(socket: Socket) -> None:
    while (message := await socket.receive()) is not None:
        with socket.at_work():
            await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send(message))


async def test_messages_come_and_go() -> None:
    async with serving(echo) as (client, services), client.ws_connect("/") as ws:
        await ws.send_str("hello")
        assert await ws.receive_json() == "hello"
        await ws.send_bytes(b"\x00")
        assert await ws.receive_bytes() == b"\x00"
        assert len(services.sockets) == 1
        await ws.close()
        assert services.sockets == set()


async def test_it_is_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "PING_S", 0.01)
    async with serving(echo) as (client, _), client.ws_connect("/", autoping=False) as ws:
        for _ in range(3):
            assert (await ws.receive(10)).type is aiohttp.WSMsgType.PING


async def test_the_stop_waits_for_work_and_for_nothing_else() -> None:
    go_on, at_work = asyncio.Event(), asyncio.Event()

    async def work(socket: Socket) -> None:
        assert await socket.receive() == "work"
        with socket.at_work():
            at_work.set()
            await go_on.wait()
            await socket.send("done")
        assert await socket.receive() is None

    async with serving(work) as (client, services), client.ws_connect("/") as idle, client.ws_connect("/") as busy:
        await busy.send_str("work")
        await at_work.wait()
        for one in list(services.sockets):
            one.end()
        assert (await idle.receive(10)).data == aiohttp.WSCloseCode.SERVICE_RESTART
        go_on.set()
        assert await busy.receive_json() == "done"
        assert (await busy.receive(10)).data == aiohttp.WSCloseCode.SERVICE_RESTART


async def test_one_accepted_in_the_moment_of_the_stop_is_closed_too() -> None:
    async with serving(echo) as (client, services):
        services.stopping = True
        async with client.ws_connect("/") as ws:
            assert (await ws.receive(10)).data == aiohttp.WSCloseCode.SERVICE_RESTART


async def test_messages_that_are_too_long_close_it() -> None:
    async with serving(echo) as (client, _), client.ws_connect("/") as ws:
        await ws.send_str("x" * 2000)
        assert (await ws.receive(10)).data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_handler_that_fails_says_so_with_its_close_code() -> None:
    async def fail(socket: Socket) -> None:
        raise ValueError("a bug")

    async with serving(fail) as (client, services), client.ws_connect("/") as ws:
        assert (await ws.receive(10)).data == aiohttp.WSCloseCode.INTERNAL_ERROR
    assert services.sockets == set()


async def test_what_is_no_websocket_is_refused_before_anything_is_sent() -> None:
    async with serving(echo) as (client, services):
        assert (await client.get("/")).status == 400
        assert services.sockets == set()
