"""The installed service under exactly the units that the package ships: it speaks, it listens, and it comes back.

What a drop-in changes here is said where it is; hardening is never among it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import scraping
from daemons import AUDIO
from systemd.service import PORT, UNITS, Service, Stream, speech, until

RESTARTS = 20
CONFIG = "/etc/audiod/audiod.toml"
KEYS = "/etc/audiod/api-keys"


@pytest.fixture
def edited(service: Service) -> Iterator[Service]:
    """The service, whose configuration the test may change."""
    kept = {file: service.box.path(file).read_text() for file in (CONFIG, KEYS)}
    yield service
    for file, text in kept.items():
        service.box.path(file).write_text(text)
    service.well()
    service.systemctl("restart", "audiod.service")


def test_the_embedded_models_speak_and_understand(service: Service) -> None:
    assert "box" in service.transcribe(service.speak("Hello from the box.")).lower()
    assert "语音" in service.transcribe(service.speak("你好，欢迎使用语音服务。", "kokoro-82m"))
    assert "ready: " in service.box.show("audiod.service", "StatusText")


def test_each_model_has_a_control_group_below_the_services_own(service: Service) -> None:
    service.speak()
    worker = service.model("hibari")["worker_pid"]
    groups = service.box.path(f"/proc/{worker}/cgroup").read_text()
    assert groups.strip().endswith("/system.slice/audiod.service/model-hibari")


def test_from_start_to_the_first_transcription(service: Service, measured: dict[str, str]) -> None:
    recording = (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()
    service.systemctl("stop", "audiod.service")
    started = time.monotonic()
    service.systemctl("start", "audiod.service")
    active_s = time.monotonic() - started
    assert service.transcribe(recording).strip()
    measured["start"] = f"active after {active_s:.2f} s, first transcription after {time.monotonic() - started:.1f} s"


def test_a_request_starts_the_stopped_service(service: Service) -> None:
    service.systemctl("stop", "audiod.service")
    assert service.pid == 0
    assert service.request("GET", "/v1/models")[0] == 200
    assert service.active()


def test_audioctl_starts_the_stopped_service(service: Service) -> None:
    service.systemctl("stop", "audiod.service")
    assert service.status()["pid"] == service.pid != 0


def test_restarts_refuse_nothing_and_lose_nothing(service: Service, measured: dict[str, str]) -> None:
    pids = {service.pid}
    started = time.monotonic()
    with Stream(service) as stream:
        for _ in range(RESTARTS):
            spoken = stream.spoken
            # As often as this, a start would be refused for its frequency, and the sockets fail with it.
            service.box.run("systemctl", "reset-failed", "audiod.service")
            service.systemctl("restart", "audiod.service")
            pids.add(service.pid)
            until(lambda spoken=spoken: stream.spoken > spoken, "an answer after the restart")  # type: ignore[misc]
    took_s = time.monotonic() - started
    measured[f"{RESTARTS} restarts"] = f"{took_s:.0f} s, requests by outcome: {dict(stream.outcomes)}"
    assert len(pids) == RESTARTS + 1
    assert set(stream.outcomes) == {"spoken", "listed"}


def test_a_hanging_loop_is_ended_and_the_service_comes_back(service: Service, measured: dict[str, str]) -> None:
    service.drop_in("audiod.service", "[Service]\nWatchdogSec=2s\n")
    try:
        service.systemctl("restart", "audiod.service")
        restarts = int(service.box.show("audiod.service", "NRestarts"))
        hung = service.pid
        service.box.run("kill", "-STOP", str(hung))
        took_s = until(lambda: service.pid not in (0, hung) and service.active(), "the service is back")
        measured["watchdog of 2 s"] = f"service back after {took_s:.1f} s"
        assert int(service.box.show("audiod.service", "NRestarts")) == restarts + 1
        assert service.request("GET", "/health/live")[0] == 200
        assert "Watchdog timeout" in service.journal_text("--unit=audiod.service")
    finally:
        service.no_drop_in("audiod.service")
        service.systemctl("restart", "audiod.service")


def test_a_killed_worker_costs_nobody_else_anything(service: Service) -> None:
    service.speak()
    daemon, worker = service.pid, service.model("hibari")["worker_pid"]
    service.box.run("kill", "-KILL", str(worker))
    assert service.speak().startswith(b"RIFF")
    assert service.model("hibari")["worker_pid"] != worker
    assert service.pid == daemon


def test_a_worker_that_dies_at_work_costs_its_own_request_only(service: Service) -> None:
    service.speak()
    daemon, worker = service.pid, service.model("hibari")["worker_pid"]

    def listen() -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)) as connection:
            connection.request(*speech("This takes a while. " * 150))
            answer = connection.getresponse()
            assert answer.read(1)
            service.box.run("kill", "-KILL", str(worker))
            # Cut off, so that nobody takes half a recording for the whole.
            with pytest.raises(http.client.IncompleteRead):
                answer.read()

    service.inside(listen)
    assert service.speak().startswith(b"RIFF")
    assert service.pid == daemon


def test_a_killed_daemon_leaves_no_process_and_comes_back(service: Service) -> None:
    service.speak()
    old = service.box.shell("cat $(find /sys/fs/cgroup/system.slice/audiod.service -name cgroup.procs)").split()
    killed = service.pid
    service.box.run("kill", "-KILL", str(killed))
    until(lambda: service.pid not in (0, killed) and service.active(), "the service is back")
    assert [pid for pid in old if service.box.path(f"/proc/{pid}").exists()] == []
    assert service.speak().startswith(b"RIFF")


def test_a_good_configuration_is_taken_and_a_bad_one_refused(edited: Service) -> None:
    daemon, file = edited.pid, edited.box.path(CONFIG)
    asked = json.dumps({"model": "hibari", "voice": "alloy", "input": "too long a text"}).encode()
    headers = {"Content-Type": "application/json"}
    file.write_text("[server]\ninput_characters = 5\n")
    edited.systemctl("reload", "audiod.service")
    # Done when systemctl is: the very next request meets the new configuration.
    assert edited.request("POST", "/v1/audio/speech", asked, headers)[0] == 400

    file.write_text("[server]\ninput_characters = 5000\nport_number = 1\n")
    assert edited.systemctl("reload", "audiod.service", check=False) != 0
    assert edited.request("POST", "/v1/audio/speech", asked, headers)[0] == 400
    assert (edited.pid, edited.active()) == (daemon, True)
    assert "port_number" in edited.journal_text("--unit=audiod.service")


def test_a_bad_configuration_put_right_is_soon_in_force(edited: Service) -> None:
    file = edited.box.path(CONFIG)
    right = file.read_text()
    file.write_text(right + "\nnonsense = 1\n")
    assert edited.systemctl("restart", "audiod.service", check=False) != 0
    # Whoever asks meanwhile starts it again and again, until systemd refuses to.
    with pytest.raises((OSError, http.client.HTTPException)):
        edited.request("GET", "/health/live")
    until(lambda: not edited.active(), "the sockets have given up")
    assert "nonsense" in edited.journal_text("--unit=audiod.service")
    file.write_text(right)
    until(lambda: edited.systemctl("start", *UNITS, check=False) == 0, "it can be started again", 20)
    assert edited.request("GET", "/health/ready")[0] == 200


def test_keys_are_handed_over_as_a_credential(edited: Service) -> None:
    edited.box.path(KEYS).write_text("tests s3cret-of-the-tests\n")
    edited.systemctl("restart", "audiod.service")
    assert edited.request("GET", "/v1/models")[0] == 401
    assert edited.request("GET", "/v1/models", headers={"Authorization": "Bearer s3cret-of-the-tests"})[0] == 200
    assert edited.request("GET", "/health/live")[0] == 200
    journal = edited.journal_text("--unit=audiod.service")
    environment = edited.box.path(f"/proc/{edited.pid}/environ").read_text()
    assert "s3cret" not in journal + environment


@pytest.fixture
def full(service: Service) -> Iterator[Service]:
    """The service with a state directory of 32 MB that is full; models and runtimes are where they were."""
    box = service.box
    service.systemctl("stop", *UNITS)
    box.shell(
        """
        mkdir -p /srv/state && mount --bind --make-private /var/lib/audiod /srv/state
        mount -t tmpfs -o size=32m,mode=755,uid=audiod,gid=audiod tmpfs /var/lib/audiod
        for kind in models runtimes; do
            install -d -o audiod -g audiod -m 700 /var/lib/audiod/$kind
            for part in $(cd /srv/state/$kind && ls); do
                mkdir /var/lib/audiod/$kind/$part
                mount --bind /srv/state/$kind/$part /var/lib/audiod/$kind/$part
            done
        done
        dd if=/dev/zero of=/var/lib/audiod/ballast bs=64k 2>/dev/null || true
        """
    )
    assert box.shell("df --output=avail /var/lib/audiod | tail -1").strip() == "0"
    service.well()
    yield service
    service.systemctl("stop", *UNITS)
    box.shell("umount --recursive /var/lib/audiod; umount /srv/state; test -d /var/lib/audiod/runtimes")
    service.well()


def test_a_full_state_directory_stops_no_speech(full: Service) -> None:
    assert full.speak().startswith(b"RIFF")
    full.systemctl("restart", "audiod.service")
    assert full.speak().startswith(b"RIFF")
    assert full.systemctl("start", "audiod-pull@whisper-tiny-en.service", check=False) != 0
    told = full.journal_text("--unit=audiod-pull@whisper-tiny-en.service")
    assert "whisper-tiny-en needs 150 MiB in /var/lib/audiod/models, where 0 B are free" in told
    assert full.model("whisper-tiny-en")["state"] == "unloaded"
    assert full.active()


@pytest.mark.skipif(scraping.program("prometheus") is None, reason="no Prometheus: run scripts/setup-system prometheus")
def test_a_prometheus_scrapes_it(service: Service, tmp_path: Path) -> None:
    def scraped() -> tuple[float | None, float | None]:
        # Its process is in the box's network, as the thread that starts it is.
        with scraping.scraping(tmp_path, f"http://127.0.0.1:{PORT}") as prometheus:
            service.speak()
            prometheus.catch_up()
            spoken = 'audiod_requests_total{endpoint="/v1/audio/speech", model="hibari", status="200"}'
            return prometheus.value('up{job="audiod"}'), prometheus.value(f"sum({spoken})")

    up, requests = service.inside(scraped)
    assert up == 1
    assert requests is not None
    assert requests >= 1


def test_no_unit_has_failed_and_the_log_is_calm(service: Service) -> None:
    service.speak()
    assert service.box.run("systemctl", "--failed", "--no-legend", "--plain").stdout == ""
    text = service.journal_text("--unit=audiod.service", "--unit=audiod-pull@*")
    assert "Traceback" not in text
    assert "unexpected error" not in text
