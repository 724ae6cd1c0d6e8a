"""What holds for every path: errors, ids, headers, keys, and clients that go away."""

from __future__ import annotations

import json
import socket
import urllib.parse

import httpx2
import pytest

from daemons import Daemon

from .conftest import KEY, post_audio, refusal, speak


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("POST", "/chat/completions"),
        ("GET", "/audio"),
        ("GET", "/audio/transcriptions"),
        ("PUT", "/audio/speech"),
        ("PATCH", "/models"),
        ("GET", "/../../etc/passwd"),
        ("GET", "/models/"),
        ("OPTIONS", "/nothing"),
    ],
)
def test_what_is_not_there_is_refused_in_the_envelope(api: httpx2.Client, method: str, path: str) -> None:
    answer = api.request(method, path)
    refusal(answer, 404, 405)
    assert answer.headers["x-request-id"]


def test_every_answer_has_an_id_of_its_own(api: httpx2.Client) -> None:
    answers = [
        api.get("/models"),
        api.get("/models"),
        api.get("/nothing"),
        speak(api, input="Hi."),
        speak(api, input=""),
    ]
    answers.append(post_audio(api, b"garbage"))
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)


def test_headers_of_sdks_and_proxies_are_ignored(api: httpx2.Client) -> None:
    headers = {
        "OpenAI-Organization": "org-x",
        "OpenAI-Project": "proj_x",
        "OpenAI-Beta": "realtime=v1",
        "X-Stainless-Lang": "python",
        "X-Stainless-Retry-Count": "1",
        "X-Stainless-Raw-Response": "stream",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=1.2.3.4",
        "Authorization": "Bearer",
        "Cookie": "a=b",
    }
    assert api.get("/models", headers=headers).status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer anything", "Basic eDp5", "nonsense"])
def test_where_no_key_is_set_any_header_will_do(api: httpx2.Client, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    assert api.get("/models", headers=headers).status_code == 200


def test_a_client_that_hangs_up_does_no_harm(daemon: Daemon, api: httpx2.Client) -> None:
    address = urllib.parse.urlsplit(daemon.url)
    body = json.dumps({"model": "tts-1", "voice": "alloy", "input": "It is a long text. " * 50}).encode()
    for sent in (body, body[:10]):
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + sent)
    assert speak(api).status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
@pytest.mark.parametrize("path", ["/models", "/models/tts-1", "/audio/speech", "/audio/transcriptions", "/nothing"])
def test_a_wrong_key_is_refused_and_not_repeated(keyed: Daemon, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = httpx2.request("POST" if "audio" in path else "GET", f"{keyed.url}/v1{path}", headers=headers)
    refusal(answer, 401)
    for secret in (KEY, "wrong"):
        assert f"{secret}" not in answer.text.replace("missing or wrong", "")
    assert answer.headers["x-request-id"]


def test_the_right_key_opens(keyed: Daemon) -> None:
    assert httpx2.get(f"{keyed.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert httpx2.get(f"{keyed.url}/v1/models", headers={"authorization": f"bearer {KEY}"}).status_code == 200
    for open_path in ("/health", "/openapi.json", "/docs", "/metrics"):
        assert httpx2.get(f"{keyed.url}{open_path}").status_code == 200


def test_malformed_http_does_not_end_the_daemon(daemon: Daemon, api: httpx2.Client) -> None:
    address = urllib.parse.urlsplit(daemon.url)
    for sent in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(4096), b""))
            assert not received.startswith(b"HTTP/1.1 5"), received
    assert api.get("/models").status_code == 200
