"""Who is served: keys of the environment, open mode, pages in browsers."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from daemons import Daemon, running, say

PAGE = "https://studio.example"


class Keyed(Daemon):
    """A daemon with keys in its environment, for a page of one origin."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"AUDIOD_API_KEYS": "studio sk-one,sk-two"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Keyed]:
    settings = f'[server]\ncors_origins = ["{PAGE}"]\n'
    daemon = Keyed(tmp_path_factory.mktemp("keyed"), state_dir, settings)
    daemon.start()
    yield daemon
    daemon.stop()
    daemon.check_log()
    assert "sk-" not in daemon.log.read_text()


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


def asked(daemon: Daemon, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    address = urlsplit(daemon.url)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(HTTPConnection(address.hostname or "", address.port, timeout=60)) as connection:
        connection.request(method, path, body, named)
        with connection.getresponse() as response:
            return Answer(response.status, response.headers, response.read())


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_of_the_environment_are_accepted_and_named_in_the_log(keyed: Keyed) -> None:
    for key in ("sk-one", "sk-two"):
        assert keyed.request("GET", "/v1/models", Authorization=f"Bearer {key}")[0] == 200
    assert say(keyed)[0] == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer sk-three", "Basic sk-one", "sk-one"])
def test_a_wrong_key_is_401_and_is_not_repeated(keyed: Keyed, header: str) -> None:
    answer = asked(keyed, "GET", "/v1/models", Authorization=header)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert json.loads(answer.body)["error"].keys() == {"message", "type", "param", "code"}
    assert b"sk-" not in answer.body


def test_a_key_of_any_bytes_is_only_wrong(keyed: Keyed) -> None:
    assert socket_status(keyed, "Authorization: Bearer sk-\udcff\udc80") == 401
    assert socket_status(keyed, "Authorization: Bearer 钥匙") == 401
    assert socket_status(keyed, f"Authorization: Bearer {'x' * 8000}") == 401


def test_the_keys_reach_no_process_and_no_output(keyed: Keyed) -> None:
    assert keyed.ctl("load", "hibari").returncode == 0
    model = keyed.model("hibari")
    for pid in (keyed.process.pid, model["zygote_pid"], model["worker_pid"]):
        assert b"sk-" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert keyed.ctl("reload").returncode == 0
    assert asked(keyed, "GET", "/v1/models").status == 401
    command = [*keyed.command()[:2], "check-config", "--json", str(keyed.config)]
    checked = subprocess.run(command, env=keyed.environment(), capture_output=True, text=True, check=True)
    assert "sk-" not in checked.stdout + checked.stderr


def test_names_are_told_without_a_key_unless_the_operator_says_no(
    keyed: Keyed, tmp_path: Path, state_dir: Path
) -> None:
    names = json.loads(keyed.get("/v1/audio/voices")[1])["voices"]
    assert names
    assert keyed.request("POST", "/v1/audio/voices", b"{}")[0] == 401
    daemon = Keyed(tmp_path, state_dir, "[server]\nopen_names = false\n")
    daemon.start()
    try:
        for path in ("/v1/audio/voices", "/v1/audio/models"):
            assert daemon.get(path)[0] == 401
            assert daemon.request("GET", path, Authorization="Bearer sk-two")[0] == 200
    finally:
        daemon.stop()
        daemon.check_log()


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer none", "Basic bm9uZQ=="])
def test_where_no_key_is_needed_any_header_is_accepted(daemon: Daemon, header: str) -> None:
    assert daemon.request("GET", "/v1/models", Authorization=header)[0] == 200


# --- open mode --------------------------------------------------------------------------------------------------------


def refused(daemon: Daemon, *options: str) -> str:
    ended = subprocess.run(
        [*daemon.command(), *options], env=daemon.environment(), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 7
    assert "ResourceWarning" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_other_hosts_are_not_served(tmp_path: Path, state_dir: Path, host: str) -> None:
    said = refused(Daemon(tmp_path, state_dir), "--host", host)
    assert "there are no API keys" in said
    assert "server.open = true" in said


def test_unless_the_operator_says_so(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[server]\nhost = "0.0.0.0"\nopen = true\n') as daemon:
        assert daemon.get("/v1/models")[0] == 200
        kept = daemon.config.read_text()
        daemon.config.write_text(kept.replace("open = true", "open = false"))
        reloaded = daemon.ctl("reload")
        assert reloaded.returncode == 7
        assert "there are no API keys" in reloaded.stderr
        assert daemon.get("/v1/models")[0] == 200


def test_with_keys_other_hosts_are_served(tmp_path: Path, state_dir: Path) -> None:
    daemon = Keyed(tmp_path, state_dir, '[server]\nhost = "0.0.0.0"\n')
    daemon.start()
    assert daemon.request("GET", "/v1/models", Authorization="Bearer sk-one")[0] == 200
    assert daemon.get("/v1/models")[0] == 401
    daemon.stop()
    daemon.check_log()


# --- pages in browsers ------------------------------------------------------------------------------------------------


def test_a_preflight_is_answered_without_a_key(keyed: Keyed) -> None:
    answer = asked(
        keyed,
        *("OPTIONS", "/v1/audio/speech"),
        Origin=PAGE,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type",
    )
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/audio/speech"])
def test_answers_and_errors_may_be_read_by_the_page_and_no_other(keyed: Keyed, path: str) -> None:
    answer = asked(keyed, "GET", path, Origin=PAGE, Authorization="Bearer sk-one")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    exposed = answer.headers["Access-Control-Expose-Headers"]
    assert {"x-request-id", "retry-after"} <= {name.strip() for name in exposed.split(",")}
    other = asked(keyed, "GET", path, Origin="https://evil.example", Authorization="Bearer sk-one")
    assert "Access-Control-Allow-Origin" not in other.headers
    assert other.headers["Vary"] == "Origin"


def test_a_stream_may_be_read_by_the_page(keyed: Keyed) -> None:
    body = {"model": "tts-1", "input": "Hello.", "voice": "alloy", "response_format": "pcm"}
    headers = {"Authorization": "Bearer sk-two", "Origin": PAGE, "Content_Type": "application/json"}
    answer = asked(keyed, "POST", "/v1/audio/speech", json.dumps(body).encode(), **headers)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.body


def test_pages_are_told_nothing_unless_configured(daemon: Daemon) -> None:
    answer = asked(daemon, "GET", "/v1/models", Origin=PAGE)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Vary" not in answer.headers
    preflight = asked(daemon, "OPTIONS", "/v1/models", Origin=PAGE, Access_Control_Request_Method="GET")
    assert preflight.status == 405


def socket_status(daemon: Daemon, *headers: str) -> int:
    """What is said to a request for a WebSocket: 101 to who may open one."""
    address = urlsplit(daemon.url)
    with socket.create_connection((address.hostname or "", address.port or 0), 60) as sock:
        upgrade = (
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        lines = ("GET /v1/audio/speech/stream HTTP/1.1", f"Host: {address.netloc}", *upgrade, *headers, "", "")
        sock.sendall("\r\n".join(lines).encode(errors="surrogateescape"))
        with HTTPResponse(sock) as response:
            response.begin()
            return response.status


def test_browsers_send_their_key_as_a_subprotocol(keyed: Keyed) -> None:
    protocols = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key."
    assert socket_status(keyed) == 401
    assert socket_status(keyed, protocols + "sk-three") == 401
    assert socket_status(keyed, protocols + "sk-two") == 101
    assert socket_status(keyed, "Authorization: Bearer sk-one") == 101


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://localhost:5173", 101),
        ("http://127.0.0.1:3000", 101),
        ("http://[::1]:3000", 101),
    ],
)
def test_where_no_key_is_needed_no_foreign_page_opens_a_websocket(daemon: Daemon, origin: str, status: int) -> None:
    assert socket_status(daemon, f"Origin: {origin}") == status
    assert socket_status(daemon) == 101
