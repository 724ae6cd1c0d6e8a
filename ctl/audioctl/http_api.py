"""The OpenAI-compatible HTTP API as say, subtitles, transcribe and voices use it: base URL, key, uploads, errors.

Imported by those verbs only: http.client costs more than the whole of `audioctl status`. Holds no audio in memory.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from io import BufferedReader
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from audioctl.client import Client, decode
from audioproto import __version__
from audioproto.control import GetStatus, Status
from audioproto.errors import (
    AudiodError,
    BadRequest,
    DaemonUnreachable,
    NotFound,
    PermissionDenied,
    Unavailable,
    UploadTooLarge,
    all_errors,
)

CONNECT_TIMEOUT_S = 10.0
"""Only to connect. An answer may wait for a model to load, and hours of speech take their time; Ctrl-C ends it."""

BLOCK_BYTES = 1 << 16

_MESSAGE_LIMIT = 300

_BY_STATUS: dict[int, type[AudiodError]] = {
    401: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    413: UploadTooLarge,
    429: Unavailable,
    503: Unavailable,
}


def add_url(parser: argparse.ArgumentParser) -> None:
    """The option that say, subtitles, transcribe and voices share."""
    parser.add_argument("--url", metavar="URL", help="base URL of the API; default: where the daemon says it listens")


def base_url(given: str | None, environment: Mapping[str, str], client: Client) -> str:
    """`--url`, else AUDIOD_URL, else what the daemon says over its socket. Raises AudiodError."""
    if named := given or environment.get("AUDIOD_URL"):
        return named
    served = decode(client.call(GetStatus()), Status).http
    if not served:
        raise DaemonUnreachable("this daemon serves no HTTP", hint="audioctl status, or --url URL")
    return served[0]


def connect(url: str | None, client: Client) -> HttpApi:
    """The API that the options and the environment lead to. Raises AudiodError."""
    is_told = not (url or os.environ.get("AUDIOD_URL"))
    return HttpApi(base_url(url, os.environ, client), os.environ.get("AUDIOD_API_KEY", ""), is_audiod=is_told)


class HttpApi:
    """Sends one request a connection to the API at `url`, with or without a trailing `/v1`."""

    def __init__(self, url: str, key: str = "", *, is_audiod: bool = False) -> None:
        """Raises BadRequest where `url` is none. `key` is sent as a bearer token, unless it is empty.

        `is_audiod` says that an audiod answers there; where somebody names a URL, it may be any server.
        """
        self.is_audiod = is_audiod
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        try:
            self._port = parts.port or (443 if self._secure else 80)
        except ValueError:
            self._port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or not self._port:
            raise BadRequest(f"{url!r} is no base URL", hint="--url http://127.0.0.1:8000")
        self.url = url
        self._host = parts.hostname
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._headers = {"User-Agent": f"audioctl/{__version__}", "Connection": "close"}
        if key.strip():
            self._headers["Authorization"] = f"Bearer {key.strip()}"

    def get(self, path: str) -> bytes:
        """Raises AudiodError."""
        return b"".join(self._send("GET", path))

    def delete(self, path: str) -> bytes:
        """Raises AudiodError."""
        return b"".join(self._send("DELETE", path))

    def post_json(self, path: str, fields: Mapping[str, Any]) -> Iterator[bytes]:
        """Send `fields` as JSON; yields the body of the answer as it comes. Raises AudiodError."""
        body = msgspec.json.encode(fields)
        return self._post(path, "application/json", len(body), iter([body]))

    def post_for_events(self, path: str, fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send `fields` as JSON; yields the server-sent events of the answer as they come. Raises AudiodError."""
        rest = b""
        for block in self.post_json(path, fields):
            *events, rest = (rest + block).split(b"\n\n")
            for event in events:
                said = decode(event.removeprefix(b"data: "), dict[str, Any])
                if "error" in said:
                    raise _typed(msgspec.convert(said, _Envelope).error, AudiodError)
                yield said

    def post_file(self, path: str, fields: Mapping[str, str], file: Path, name: str = "file") -> bytes:
        """Send `fields`, then `file` under `name`, as multipart/form-data, read as it is sent. Raises AudiodError."""
        boundary = secrets.token_hex(16)
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        )
        head += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{_quoted(file.name)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        try:
            source = file.open("rb")
        except OSError as error:
            raise BadRequest(f"cannot read {file}: {error.strerror}") from error
        with source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BadRequest(f"{file} is no regular file")
            length = len(head.encode()) + status.st_size + len(tail)
            blocks = _chain(head.encode(), source, status.st_size, tail.encode())
            return b"".join(self._post(path, f"multipart/form-data; boundary={boundary}", length, blocks))

    def _post(self, path: str, content_type: str, length: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
        return self._send("POST", path, {"Content-Type": content_type, "Content-Length": str(length)}, blocks)

    def _send(
        self, method: str, path: str, more: Mapping[str, str] = {}, blocks: Iterable[bytes] = ()
    ) -> Iterator[bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        headers = {**self._headers, **more}
        with closing(kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)) as connection:
            try:
                connection.connect()
                connection.sock.settimeout(None)
                connection.putrequest(method, f"{self._prefix}/v1{path}")
                for name, value in headers.items():
                    connection.putheader(name, value)
                connection.endheaders()
                _send(connection, blocks)
                answer = connection.getresponse()
                if answer.status >= 300:
                    raise _refusal(answer)
                yield from _body(answer)
            except http.client.HTTPException as error:
                raise DaemonUnreachable(f"{self.url} broke off", hint="journalctl -u audiod -n 50") from error
            except OSError as error:
                raise DaemonUnreachable(
                    f"cannot reach {self.url}: {error.strerror or error}", hint="audioctl status, or --url URL"
                ) from error


def _send(connection: http.client.HTTPConnection, blocks: Iterable[bytes]) -> None:
    for block in blocks:
        try:
            connection.send(block)
        except (BrokenPipeError, ConnectionResetError):
            # The server has refused in the middle of the upload; its reason waits to be read.
            return


def _body(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    # Counted here: http.client raises IncompleteRead where chunks stop, yet not where a Content-Length is not kept.
    left = answer.length
    while left is None or left > 0:
        block = answer.read1(BLOCK_BYTES)
        if not block:
            break
        left = None if left is None else left - len(block)
        yield block
    if left:
        raise http.client.IncompleteRead(b"", left)


def _chain(head: bytes, source: BufferedReader, size_bytes: int, tail: bytes) -> Iterator[bytes]:
    yield head
    left = size_bytes
    while left:
        try:
            block = source.read(min(BLOCK_BYTES, left))
        except OSError as error:
            raise BadRequest(f"cannot read {source.name}: {error.strerror}") from error
        if not block:
            raise BadRequest(f"{source.name} became shorter while it was sent")
        left -= len(block)
        yield block
    yield tail


def _quoted(name: str) -> str:
    """A file's name in a header, escaped as browsers do (WHATWG HTML, multipart/form-data encoding algorithm)."""
    safe = name.encode(errors="replace").decode()
    return safe.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


class _Problem(msgspec.Struct):
    """OpenAI's error object. It has no place for a hint; the daemon puts that into the message."""

    message: str
    code: str | None = None
    param: str | None = None


class _Envelope(msgspec.Struct):
    error: _Problem


def _refusal(answer: http.client.HTTPResponse) -> AudiodError:
    body = answer.read()
    retry_after = answer.headers.get("Retry-After", "")
    retry_after_s = float(retry_after) if retry_after.isdecimal() else None
    try:
        problem = msgspec.json.decode(body, type=_Envelope).error
    except (msgspec.DecodeError, RecursionError):
        text = " ".join(body.decode(errors="replace").split())[:_MESSAGE_LIMIT]
        problem = _Problem(f"HTTP status {answer.status} {answer.reason}: {text}".rstrip(": "))
    fallback = _BY_STATUS.get(answer.status, BadRequest if answer.status < 500 else AudiodError)
    error = _typed(problem, fallback)
    error.hint = "export AUDIOD_API_KEY=KEY" if answer.status == 401 else ""
    error.retry_after_s = retry_after_s
    return error


def _typed(problem: _Problem, fallback: type[AudiodError]) -> AudiodError:
    return all_errors().get(problem.code or "", fallback)(problem.message, param=problem.param or "")
