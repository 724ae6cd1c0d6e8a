"""/health and its kin on a real daemon: what they say while it starts, drains, failed to preload, and is well."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from audioproto import PROTOCOL_VERSION, __version__
from daemons import Daemon, running

PATIENCE_S = 60.0


def ready(daemon: Daemon) -> tuple[int, dict[str, str]]:
    status, body = daemon.get("/health/ready")
    return status, json.loads(body)


def health(daemon: Daemon, query: str = "") -> dict[str, Any]:
    status, body = daemon.get(f"/health{query}")
    assert status == 200
    answer: dict[str, Any] = json.loads(body)
    return answer


def becomes(daemon: Daemon, wanted: str) -> dict[str, str]:
    """The answer of /health/ready once its status is that."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := ready(daemon)[1])["status"] != wanted:
        assert time.monotonic() < deadline, answer
        time.sleep(0.02)
    return answer


def preload(daemon: Daemon, model: str) -> None:
    file = daemon.directory / "models.d" / f"{model}.toml"
    file.write_text(f"preload = true\n{file.read_text()}")


def test_health_tells_devices_models_queue_and_versions(daemon: Daemon) -> None:
    now = health(daemon)
    assert (now["status"], now["reason"]) == ("ready", "")
    assert (now["versions"]["audiod"], now["versions"]["protocol"]) == (__version__, PROTOCOL_VERSION)
    assert (now["queue"]["waiting"], now["queue"]["limit"]) == (0, 512)
    (device,) = now["devices"]
    assert device["device"] == "cpu"
    assert 0 < device["budget_bytes"] < device["total_bytes"]
    assert 0 < device["others_bytes"] < device["total_bytes"]
    assert now["models"]["hibari"] == {
        **{"task": "speak", "state": "unloaded", "installed": True},
        **{"leases": 0, "waiting": 0},
    }
    assert now["models"]["whisper-tiny-en"]["installed"] is False
    assert "mirrors" not in now, "the network is asked only where that was asked for"
    daemon.ctl("load", "hibari")
    loaded = health(daemon)
    assert loaded["models"]["hibari"]["state"] == "ready"
    assert loaded["devices"][0]["reserved_bytes"] > device["reserved_bytes"]


def test_while_draining_it_is_alive_but_not_ready(daemon: Daemon) -> None:
    daemon.ctl("drain", "--wait")
    status, answer = ready(daemon)
    assert (status, answer["status"]) == (503, "draining")
    assert "audioctl undrain" in answer["reason"]
    assert health(daemon)["status"] == "draining"
    assert daemon.get("/health/live")[0] == 200
    daemon.ctl("undrain")
    assert ready(daemon) == (200, {"status": "ready", "reason": ""})


def test_until_everything_is_preloaded_it_is_starting_and_names_what_is_awaited(
    tmp_path: Path, state_dir: Path
) -> None:
    daemon = Daemon(tmp_path, state_dir)
    preload(daemon, "kokoro-82m")  # takes two seconds
    daemon.start()
    try:
        status, answer = ready(daemon)
        assert (status, answer) == (503, {"status": "starting", "reason": "preloading kokoro-82m"})
        becomes(daemon, "ready")
        assert daemon.model("kokoro-82m")["state"] == "ready"
    finally:
        daemon.stop()
    daemon.check_log()


def test_a_preload_that_failed_keeps_it_from_being_ready_until_the_model_has_loaded_after_all(
    tmp_path: Path, state_dir: Path
) -> None:
    installed = tmp_path / "installed"
    (installed / "models").mkdir(parents=True)
    (installed / "runtimes").symlink_to(state_dir / "runtimes")
    daemon = Daemon(tmp_path, installed)
    preload(daemon, "whisper-base")
    daemon.start()
    try:
        answer = becomes(daemon, "failed")
        assert answer["reason"].startswith("preload of whisper-base failed: ")
        assert "whisper-base is not installed: weights missing" in answer["reason"]
        assert ready(daemon)[0] == 503
        assert health(daemon)["status"] == "failed"
        (installed / "models" / "whisper-base").symlink_to(state_dir / "models" / "whisper-base")
        assert daemon.ctl("reload").returncode == 0
        assert ready(daemon)[0] == 503, "installed is not loaded"
        assert daemon.ctl("load", "whisper-base").returncode == 0
        assert ready(daemon)[0] == 200
        daemon.ctl("unload", "whisper-base")
        assert ready(daemon)[0] == 200, "it has loaded, so it can"
    finally:
        daemon.stop()
    daemon.check_log()


class Mirror(http.server.BaseHTTPRequestHandler):
    """Package indexes, an npm registry and a hub in one, each with the one thing that is asked for."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer("text/plain", b"")

    def do_GET(self) -> None:
        if self.path.startswith("/simple/pip"):
            self.answer("text/html", b'<a href="pip-1.0-py3-none-any.whl">pip-1.0-py3-none-any.whl</a>')
        else:
            versions = {"1.2.1": {"name": "kokoro-js", "version": "1.2.1", "dist": {"tarball": "", "shasum": ""}}}
            document = {"name": "kokoro-js", "dist-tags": {"latest": "1.2.1"}, "versions": versions}
            self.answer("application/json", json.dumps(document).encode())

    def answer(self, kind: str, body: bytes) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_mirrors_are_asked_once_a_minute_however_many_want_to_know(
    tmp_path: Path, state_dir: Path, mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", f"{mirror}/simple")
    monkeypatch.setenv("npm_config_registry", f"{mirror}/")
    answers: list[dict[str, Any]] = []
    settings = f'[mirrors]\ntorch_index = "{mirror}/whl"\nhub = "{mirror}"\nmodelscope = []\n'
    with running(tmp_path, state_dir, settings) as daemon:
        asking = [threading.Thread(target=lambda: answers.append(health(daemon, "?mirrors=1"))) for _ in range(3)]
        for thread in asking:
            thread.start()
        assert daemon.get("/health/live")[0] == 200
        for thread in asking:
            thread.join(PATIENCE_S)
        answers.append(health(daemon, "?mirrors=1"))
    assert [entry["name"] for entry in answers[0]["mirrors"]] == ["pip", "torch", "npm", "hub"]
    assert all(entry["reachable"] for entry in answers[0]["mirrors"]), answers[0]["mirrors"]
    assert len(answers) == 4
    assert all(answer["mirrors"] == answers[0]["mirrors"] for answer in answers)
    assert sum(asked.startswith("GET /simple/pip") for asked in Mirror.asked) == 1
    heads = [asked for asked in Mirror.asked if asked.startswith("HEAD ")]
    assert len(heads) == len(set(heads)) == 2, "torch's index and the hub"
