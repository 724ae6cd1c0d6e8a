"""Model hubs on 127.0.0.1 for tests: Hugging Face's protocol and ModelScope's, as far as files are fetched by it.

A server of its own thread and loop, because what fetches from it blocks. Misbehaves where a test tells it to.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

COMMIT = "c0ffee" + "0" * 34
LARGE_BYTES = 1000
"""From here on a file is kept as the hub keeps large ones: behind a redirect, with its SHA-256 for a name."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Hub:
    """One hub, or a mirror of one. Use as a context manager."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository and path, at COMMIT."""
    served: dict[str, bytes] = field(default_factory=dict)
    """What is given for a path in place of what the list says."""
    cut: dict[str, int] = field(default_factory=dict)
    """Bytes after which the connection is dropped, once."""
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers to the next downloads: status and headers."""
    list_refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """The same for the next lists."""
    commit: str = COMMIT
    """What it says that it has."""
    lists: bool = True
    """Whether it has the API, or only files."""
    pause_s: float = 0.0
    """Between blocks of 1000 bytes."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request for a file."""
    tokens: list[str] = field(default_factory=list)
    """The Authorization of each request, by which hosts see whose it is."""
    url: str = ""

    def __enter__(self) -> Hub:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def downloads(self, path: str) -> list[str]:
        """The Range of each GET for the bytes of `path`, in order."""
        return [wanted for method, asked, wanted in self.asked if method == "GET" and asked == path]

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self._list)
        app.router.add_get("/api/v1/models/{owner}/{name}/repo/files", self._list_scope)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{path:.+}", self._resolve)
        app.router.add_get("/models/{owner}/{name}/resolve/{revision}/{path:.+}", self._resolve)
        app.router.add_get("/cdn/{owner}/{name}/{path:.+}", self._bytes)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def _repository(self, request: web.Request) -> dict[str, bytes]:
        repository = self.files.get("{owner}/{name}".format(**request.match_info))
        if repository is None or request.match_info.get("revision", COMMIT) not in (COMMIT, "master"):
            raise web.HTTPNotFound
        return repository

    async def _list(self, request: web.Request) -> web.Response:
        if not self.lists:
            raise web.HTTPNotFound
        if self.list_refusals:
            status, headers = self.list_refusals.pop(0)
            return web.Response(status=status, headers=headers)
        siblings: list[dict[str, object]] = []
        for path, data in self._repository(request).items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": blob}
            if len(data) >= LARGE_BYTES:
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        return web.json_response({"id": "owner/name", "sha": self.commit, "siblings": siblings})

    async def _list_scope(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("Authorization", ""))
        files: list[dict[str, object]] = [{"Path": "assets", "Type": "tree", "Size": 0, "Sha256": ""}]
        for path, data in self._repository(request).items():
            files.append({"Path": path, "Type": "blob", "Size": len(data), "Sha256": sha256(data)})
        return web.json_response({"Code": 200, "Data": {"Files": files}, "Success": True})

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        data = self._repository(request).get(request.match_info["path"])
        if data is None:
            raise web.HTTPNotFound
        if self.refusals and request.method == "GET":
            status, headers = self.refusals.pop(0)
            return web.Response(status=status, headers=headers)
        self.tokens.append(request.headers.get("Authorization", ""))
        headers = {"X-Repo-Commit": COMMIT}
        if len(data) < LARGE_BYTES:
            return await self._bytes(request)
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{sha256(data)}"'}
        there = "/cdn/{owner}/{name}/{path}".format(**request.match_info)
        return web.Response(status=302, headers=headers | {"Location": there})

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        wanted = request.headers.get("Range", "")
        self.asked.append((request.method, path, wanted))
        if request.path.startswith("/cdn/"):
            self.tokens.append(request.headers.get("Authorization", ""))
        data = self.served.get(path, self.files["{owner}/{name}".format(**request.match_info)][path])
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start and start >= len(data):
            return web.Response(status=416)
        headers = {"Content-Length": str(len(data) - start), "ETag": f'"{sha256(data)}"', "Accept-Ranges": "bytes"}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response = web.StreamResponse(status=206 if wanted else 200, headers=headers)
        await response.prepare(request)
        end = min(len(data), start + self.cut.pop(path, len(data)))
        block = 1000 if self.pause_s else 256 * 1024
        for begin in range(start, end, block):
            await response.write(data[begin : min(begin + block, end)])
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        if end < len(data) and request.transport is not None:
            request.transport.close()
        return response
