"""The daemon under a service manager, played by the test: sockets handed over, and what it tells in return."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiod import systemd
from daemons import AUDIO, Daemon, say, transcribe

HAND_OVER = """
import os, sys
for place, descriptor in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(descriptor, place, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Descriptors to the numbers from 3 on, as sd_listen_fds(3) has them. Those given are 10 or higher."""


class Supervised(Daemon):
    """A daemon whose sockets outlive it, and whose notifications are kept."""

    def __init__(self, directory: Path, state_dir: Path, settings: str = "") -> None:
        super().__init__(directory, state_dir, settings)
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(directory / "notify"))
        self.told.settimeout(20)
        self.http = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(str(self.socket))
        self.control.listen(16)
        self.stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.extra = {"NOTIFY_SOCKET": str(directory / "notify")}

    def environment(self) -> dict[str, str]:
        return super().environment() | self.extra

    def command(self) -> list[str]:
        given = ",".join(str(number) for number in self.handed)
        return [sys.executable, "-c", HAND_OVER, given, *super().command()]

    def start(self, pass_fds: object = ()) -> None:
        # In the order of neither name nor number, with one among them that is not ours.
        sockets = (self.control, self.stranger, self.http)
        self.handed = [os.dup(sock.fileno()) for sock in sockets]
        while min(self.handed) < 10:
            self.handed = [os.dup(number) for number in self.handed]
        self.extra |= {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "control:stranger:http"}
        try:
            super().start(self.handed)
        finally:
            for number in self.handed:
                os.close(number)

    def wait_for(self, message: str) -> str:
        """The next notification that begins so; earlier ones are passed over."""
        while not (told := self.told.recv(4096).decode()).startswith(message):
            pass
        return told

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for sock in (self.told, self.http, self.control, self.stranger):
            sock.close()
        self.check_log()


@pytest.fixture
def supervised(tmp_path: Path, state_dir: Path) -> Iterator[Supervised]:
    daemon = Supervised(tmp_path, state_dir)
    daemon.start()
    yield daemon
    daemon.close()


def test_it_serves_on_the_sockets_it_was_given_and_says_so(supervised: Supervised) -> None:
    supervised.wait_for("READY=1")
    port = supervised.http.getsockname()[1]
    assert supervised.url == f"http://127.0.0.1:{port}"
    assert supervised.get("/health/live")[0] == 200
    assert supervised.status()["http"] == [supervised.url]
    assert "'stranger', is no socket of ours and is closed" in supervised.log.read_text()


def test_the_status_line_follows_the_models(supervised: Supervised) -> None:
    assert "installed, none loaded" in supervised.wait_for("STATUS=")
    supervised.ctl("load", "hibari")
    assert supervised.wait_for("STATUS=ready") == "STATUS=ready: hibari"
    supervised.ctl("drain")
    assert supervised.wait_for("STATUS=draining")
    supervised.ctl("undrain")
    assert supervised.wait_for("STATUS=ready") == "STATUS=ready: hibari"


def test_no_child_inherits_sockets_or_a_voice(supervised: Supervised) -> None:
    supervised.ctl("load", "hibari")
    zygote = supervised.model("hibari")["zygote_pid"]
    environment = Path(f"/proc/{zygote}/environ").read_text()
    assert "NOTIFY_SOCKET" not in environment
    assert "LISTEN_" not in environment
    inode = os.fstat(supervised.http.fileno()).st_ino
    assert f"socket:[{inode}]" not in [str(link.readlink()) for link in Path(f"/proc/{zygote}/fd").iterdir()]


def test_the_watchdog_is_fed_until_the_loop_hangs(tmp_path: Path, state_dir: Path) -> None:
    daemon = Supervised(tmp_path, state_dir)
    daemon.extra["WATCHDOG_USEC"] = "300000"
    daemon.start()
    for _ in range(3):
        daemon.wait_for("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGSTOP)
    daemon.told.settimeout(1)
    with pytest.raises(TimeoutError):
        daemon.wait_for("nothing that it says")
    daemon.process.send_signal(signal.SIGCONT)
    daemon.wait_for("WATCHDOG=1")
    daemon.close()


def test_a_stop_finishes_what_runs_and_asks_for_the_time(supervised: Supervised) -> None:
    supervised.ctl("load", "whisper-base")
    answers: list[tuple[int, bytes]] = []
    audio = (AUDIO / "jfk.wav").read_bytes()
    asking = threading.Thread(target=lambda: answers.append(transcribe(supervised, audio)))
    asking.start()
    while supervised.model("whisper-base")["leases"] == 0:
        pass
    supervised.process.send_signal(signal.SIGTERM)
    supervised.wait_for("STOPPING=1")
    supervised.wait_for("EXTEND_TIMEOUT_USEC=")
    assert "1 requests are being finished" in supervised.wait_for("STATUS=stopping")
    asking.join(60)
    assert answers[0][0] == 200
    assert supervised.process.wait(30) == 0
    assert supervised.socket.exists(), "it belongs to the service manager"


def test_a_second_signal_does_not_wait(supervised: Supervised) -> None:
    supervised.ctl("load", "whisper-base")
    audio = (AUDIO / "librispeech-6930-75918-0001.wav").read_bytes()

    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(transcribe(supervised, audio)[0])

    asking = threading.Thread(target=ask)
    asking.start()
    while supervised.model("whisper-base")["leases"] == 0:
        pass
    supervised.process.send_signal(signal.SIGINT)
    supervised.wait_for("STOPPING=1")
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.process.wait(10) == 130
    asking.join(30)
    assert answers in ([], [503])


def test_restarts_under_load_refuse_no_connection_and_lose_no_request(supervised: Supervised) -> None:
    """Each request on a connection of its own, as curl does it; the queue of the kernel holds them meanwhile."""
    ended = threading.Event()
    failures: list[str] = []
    answers = threading.Semaphore(0)

    def keep_asking() -> None:
        while not ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", supervised.http.getsockname()[1], timeout=60)
            try:
                connection.request("GET", "/v1/models")
                status = connection.getresponse().status
            except OSError as error:
                failures.append(repr(error))
            else:
                if status != 200:
                    failures.append(f"status {status}")
            finally:
                connection.close()
                answers.release()

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    for _ in range(5):
        for _ in range(50):
            assert answers.acquire(timeout=60)
        assert supervised.stop() == 0
        supervised.start()
    ended.set()
    for asker in askers:
        asker.join(60)
    assert failures == []


def test_variables_meant_for_another_process_are_dropped() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:control", "PATH": "/bin"}
    assert systemd.inherited_sockets(environment) == {}
    assert environment == {"PATH": "/bin"}


def test_without_a_service_manager_nothing_is_said() -> None:
    notifier = systemd.Notifier.from_environment({})
    notifier.ready()
    assert not notifier.listens
    assert notifier.watchdog_s == 0


@pytest.mark.parametrize("pid", ["1", None])
def test_the_watchdog_of_another_process_is_not_ours(pid: str | None) -> None:
    environment = {"WATCHDOG_USEC": "2000000"} | ({"WATCHDOG_PID": pid} if pid else {})
    assert systemd.Notifier.from_environment(environment).watchdog_s == (0 if pid else 2)


# --- keys -------------------------------------------------------------------------------------------------------------


def test_with_keys_only_those_who_have_one_are_served(tmp_path: Path, state_dir: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# who may\nstudio sk-one\nsk-two\n")
    daemon = Daemon(tmp_path, state_dir, f'[server]\napi_keys_file = "{keys}"\n')
    daemon.start()
    try:
        for wrong in ("", "Bearer sk-three", "Basic sk-one", "sk-one"):
            status, body = daemon.request("GET", "/v1/models", Authorization=wrong)
            assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
            assert b"sk-" not in body
        for key in ("sk-one", "sk-two"):
            assert daemon.request("GET", "/v1/models", Authorization=f"Bearer {key}")[0] == 200
        assert say(daemon)[0] == 401
        assert daemon.get("/health/ready")[0] == 200
        assert daemon.get("/metrics")[0] == 200
        for path in ("/v1/audio/voices", "/v1/audio/models"):
            assert daemon.get(path)[0] == 200
            assert daemon.request("GET", path, Authorization="Bearer sk-three")[0] == 401
        keys.write_text("sk-three\n")
        assert daemon.ctl("reload").returncode == 0
        assert daemon.request("GET", "/v1/models", Authorization="Bearer sk-one")[0] == 401
        assert daemon.request("GET", "/v1/models", Authorization="Bearer sk-three")[0] == 200
        keys.write_text("one two three\n")
        refused = daemon.ctl("reload")
        assert refused.returncode == 7
        assert "line 1" in refused.stderr
        assert "two" not in refused.stderr
    finally:
        daemon.stop()
        daemon.check_log()
    assert "sk-" not in daemon.log.read_text()


def test_a_credential_of_systemd_holds_the_keys(tmp_path: Path, state_dir: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "api-keys").write_text("sk-one\n")
    daemon = Supervised(tmp_path, state_dir)
    daemon.extra["CREDENTIALS_DIRECTORY"] = str(tmp_path / "credentials")
    daemon.start()
    assert daemon.get("/v1/models")[0] == 401
    assert daemon.request("GET", "/v1/models", Authorization="Bearer sk-one")[0] == 200
    daemon.close()


@pytest.mark.parametrize("open_to_all", [False, True])
def test_a_socket_that_others_reach_is_not_served_without_keys_unless_told_so(
    tmp_path: Path, state_dir: Path, open_to_all: bool
) -> None:
    daemon = Supervised(tmp_path, state_dir, "[server]\nopen = true\n" if open_to_all else "")
    daemon.http.close()
    daemon.http = socket.create_server(("0.0.0.0", 0))
    if open_to_all:
        daemon.start()
        assert daemon.get("/v1/models")[0] == 200
    else:
        with pytest.raises(AssertionError, match="there are no API keys"):
            daemon.start()
        assert daemon.process.wait(20) == 7, "systemd does not start it again"
    daemon.close()


def test_a_unix_socket_is_served_without_keys(tmp_path: Path, state_dir: Path) -> None:
    daemon = Supervised(tmp_path, state_dir)
    daemon.http.close()
    daemon.http = socket.socket(socket.AF_UNIX)
    daemon.http.bind(str(tmp_path / "http.sock"))
    daemon.http.listen(16)
    daemon.start()
    with contextlib.closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(tmp_path / "http.sock"))
        connection.request("GET", "/v1/models")
        assert connection.getresponse().read().startswith(b'{"object":"list"')
    daemon.close()
