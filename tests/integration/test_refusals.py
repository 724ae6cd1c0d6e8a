"""What no handler ever sees: unknown paths, wrong methods, what is no HTTP. Each is refused in the API's own words."""

from __future__ import annotations

import json
import socket
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from daemons import Daemon

FOUR = {"message", "type", "param", "code"}


def exchange(daemon: Daemon, sent: bytes, method: str = "GET") -> tuple[HTTPResponse, dict[str, Any]]:
    """Whatever is `sent`, the answer is one, with an id and, unless the `method` is HEAD, an error."""
    address = urlsplit(daemon.url)
    with socket.create_connection((address.hostname or "", address.port or 0), 30) as sock:
        sock.sendall(sent)
        response = HTTPResponse(sock, method=method)
        response.begin()
        with response:
            body = response.read()
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["Content-Type"].startswith("application/json")
    if method == "HEAD":
        assert body == b""
        return response, {}
    error: dict[str, Any] = json.loads(body)["error"]
    assert error.keys() == FOUR
    return response, error


def head(first: str, *headers: str) -> bytes:
    return "\r\n".join((first, "Host: x", *headers, "", "")).encode()


MALFORMED = {
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "unknown version": b"GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n",
    "unknown method": head("BREW /v1/models HTTP/1.1"),
    "method of symbols": b"G@T /v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "header without colon": head("GET /v1/models HTTP/1.1", "Authorization sk-secret"),
    "two lengths": head("POST /v1/audio/speech HTTP/1.1", "Content-Length: 3", "Content-Length: 4"),
    "length of letters": head("POST /v1/audio/speech HTTP/1.1", "Content-Length: sk-secret"),
    "length and chunks": head("POST /v1/audio/speech HTTP/1.1", "Content-Length: 3", "Transfer-Encoding: chunked"),
    "long address": head(f"GET /v1/models?{'x' * 20_000} HTTP/1.1"),
    "long header": head("GET /v1/models HTTP/1.1", f"Authorization: Bearer {'x' * 20_000}"),
    "bad address": head("GET http://[::1/v1/models HTTP/1.1"),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_answered_in_the_envelope(daemon: Daemon, sent: bytes) -> None:
    response, error = exchange(daemon, sent)
    assert response.status == 400
    assert error["type"] == "invalid_request_error"
    assert "sk-" not in json.dumps(error) + daemon.log.read_text()
    assert daemon.get("/health/live")[0] == 200


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/audio", "/v1/audio/speech/", "/v1/nothing/%2e%2e/x", "/%00"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_an_unknown_path_is_404(daemon: Daemon, path: str, method: str) -> None:
    response, error = exchange(daemon, head(f"{method} {path} HTTP/1.1", "Content-Length: 0"))
    assert response.status == 404
    assert error["code"] == "not_found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/audio/speech", {"POST"}),
        ("PUT", "/v1/audio/transcriptions", {"POST"}),
        ("POST", "/v1/models", {"GET", "HEAD"}),
        ("OPTIONS", "/v1/models", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method_is_405_and_told_which_are_right(
    daemon: Daemon, method: str, path: str, allowed: set[str]
) -> None:
    response, error = exchange(daemon, head(f"{method} {path} HTTP/1.1", "Content-Length: 0"))
    assert response.status == 405
    assert error["code"] == "method_not_allowed"
    assert set(response.headers["Allow"].split(", ")) == allowed


def test_head_has_the_status_and_no_body(daemon: Daemon) -> None:
    assert exchange(daemon, head("HEAD /v1/nothing HTTP/1.1"), "HEAD")[0].status == 404
    assert exchange(daemon, head("HEAD /v1/audio/speech HTTP/1.1"), "HEAD")[0].status == 405
    assert exchange(daemon, head("HEAD /v1/models HTTP/1.1"), "HEAD")[0].status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": "tts-1"}'])
def test_a_body_that_makes_no_sense_is_400_whatever_is_accepted(daemon: Daemon, body: bytes) -> None:
    headers = ("Accept: application/octet-stream", "Content-Type: application/json", f"Content-Length: {len(body)}")
    response, error = exchange(daemon, head("POST /v1/audio/speech HTTP/1.1", *headers) + body)
    assert response.status == 400
    assert error["message"]


def test_every_answer_has_an_id_of_its_own(daemon: Daemon) -> None:
    sent = [head("GET /v1/nothing HTTP/1.1"), MALFORMED["nonsense"]] * 5
    assert len({exchange(daemon, one)[0].headers["x-request-id"] for one in sent}) == len(sent)


def test_the_control_socket_refuses_what_is_nested_without_end(daemon: Daemon) -> None:
    body = b'{"zz": ' + b"[" * 30_000
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(daemon.socket))
        control.sendall(b"POST /v1/load HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        answer = control.makefile("rb").read()
    assert b" 400 " in answer.splitlines()[0], answer
