"""A mirror of package archives on 127.0.0.1 for tests: wheels of a directory as an index, and Debian's packages.

Asks another server only for what it forwards, which are Debian's packages; keeps those, for the next time.
"""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Mirror:
    """Serves `<url>/simple/` from the wheels in `wheelhouse`, and `<url>/debian/` from `debian`, by way of `kept`.

    `asked` has every path that was asked for. Use as a context manager.
    """

    def __init__(self, wheelhouse: Path, debian: str, kept: Path) -> None:
        self.asked: list[str] = []
        self._wheelhouse, self._debian, self._kept = wheelhouse, debian.rstrip("/"), kept
        kept.mkdir(parents=True, exist_ok=True)
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                status, body = mirror._answer(unquote(self.path))
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass  # `asked` has it

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Mirror:
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str) -> tuple[int, bytes]:
        if page := re.fullmatch(r"/simple/([a-z0-9-]+)/", path):
            return 200, self._links(page[1])
        if file := re.fullmatch(r"/wheels/([\w.+-]+)", path):
            wheel = self._wheelhouse / file[1]
            return (200, wheel.read_bytes()) if wheel.is_file() else (404, b"")
        if archive := re.fullmatch(r"/debian/([\w./~+:-]+)", path):
            return self._forward(archive[1])
        return 404, b""

    def _links(self, project: str) -> bytes:
        """The page of a project, as PEP 503 has it."""
        names = [file.name for file in self._wheelhouse.iterdir() if _normal(file.name.split("-")[0]) == project]
        return "".join(f'<a href="/wheels/{name}">{name}</a>' for name in names).encode()

    def _forward(self, path: str) -> tuple[int, bytes]:
        # Only packages are kept: their names have their versions, while the lists of them change.
        kept = self._kept / path.rsplit("/", 1)[-1] if path.endswith(".deb") else None
        if kept is not None and kept.exists():
            return 200, kept.read_bytes()
        try:
            with urllib.request.urlopen(f"{self._debian}/{path}", timeout=60) as answer:
                body: bytes = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, b""
        if kept is not None:
            partial = kept.with_suffix(".partial")
            partial.write_bytes(body)
            partial.rename(kept)
        return 200, body


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
