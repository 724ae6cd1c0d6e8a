"""The daemon as an operator meets it: models moved by audioctl, faults, drain, reload, and what is left at the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from daemons import AUDIO, TOP, Daemon, running, say, transcribe
from sounds import wav
from watching import children, events_of


def test_load_park_unload_move_a_model_and_leave_nothing(daemon: Daemon) -> None:
    assert daemon.ctl("load", "hibari").returncode == 0
    ready = daemon.model("hibari")
    assert ready["state"] == "ready"
    assert ready["device_bytes"] > 0
    pids = {ready["zygote_pid"], ready["worker_pid"]}
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert daemon.ctl("park", "hibari").returncode == 0
    parked = daemon.model("hibari")
    assert (parked["state"], parked["worker_pid"], parked["device_bytes"]) == ("parked", None, 0)
    assert not Path(f"/proc/{ready['worker_pid']}").exists()
    assert daemon.ctl("unload", "hibari").returncode == 0
    assert daemon.model("hibari")["state"] == "unloaded"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_worker_that_is_killed_during_a_request_is_replaced_and_the_request_still_answered(daemon: Daemon) -> None:
    """Nothing had been sent, so the request is run again, once."""
    daemon.ctl("load", "whisper-base")
    victim = daemon.model("whisper-base")["worker_pid"]
    answers: list[tuple[int, bytes]] = []
    audio = (AUDIO / "jfk.wav").read_bytes()
    asking = threading.Thread(target=lambda: answers.append(transcribe(daemon, audio)))
    with events_of(daemon):
        asking.start()
        wait_until(daemon, lambda: daemon.model("whisper-base")["leases"] == 1)
        os.kill(victim, signal.SIGKILL)
        asking.join(60)
    assert answers[0][0] == 200, answers
    assert b"country" in answers[0][1]
    assert daemon.model("whisper-base")["worker_pid"] != victim


def test_a_zygote_that_is_killed_is_started_again_by_the_next_request(daemon: Daemon) -> None:
    daemon.ctl("load", "hibari")
    before = daemon.model("hibari")
    with events_of(daemon) as events:
        os.kill(before["zygote_pid"], signal.SIGKILL)
        assert next(events)["state"] == "unloaded"
    status, _ = say(daemon)
    assert status == 200
    after = daemon.model("hibari")
    assert after["state"] == "ready"
    assert after["zygote_pid"] != before["zygote_pid"]


def test_unknown_names_say_what_to_type(daemon: Daemon) -> None:
    refused = daemon.ctl("load", "nonesuch")
    assert refused.returncode == 4
    assert "audioctl models" in refused.stderr
    assert "alias of hibari, kokoro-82m" in daemon.ctl("load", "tts-1").stderr
    missing = daemon.ctl("load", "whisper-tiny-en")
    assert missing.returncode == 4
    assert "audioctl models pull whisper-tiny-en" in missing.stderr


def test_drain_refuses_new_work_and_undrain_takes_it_again(daemon: Daemon) -> None:
    assert daemon.ctl("drain", "--wait").returncode == 0
    assert daemon.get("/health/ready")[0] == 503
    status, body = say(daemon)
    assert status == 503
    assert json.loads(body)["error"]["code"] == "draining"
    assert daemon.get("/health/live")[0] == 200
    assert daemon.ctl("undrain").returncode == 0
    assert say(daemon)[0] == 200


def test_a_bad_configuration_is_refused_and_the_old_one_stays(daemon: Daemon) -> None:
    good = daemon.config.read_text()
    try:
        daemon.config.write_text(good + "\n[residency]\nkeep_alife = 3\n")
        refused = daemon.ctl("reload")
        assert refused.returncode == 7
        assert "keep_alife" in refused.stderr
        assert say(daemon)[0] == 200
        daemon.config.write_text(good + '\n[residency]\nkeep_alive = "7m"\n')
        assert daemon.ctl("reload").returncode == 0
        daemon.ctl("load", "hibari")
        assert 300 < daemon.model("hibari")["expires_s"] <= 420
    finally:
        daemon.config.write_text(good)
        daemon.ctl("reload")


def test_a_model_that_a_reload_removes_ends_its_work_and_is_gone(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir) as daemon:
        daemon.ctl("load", "whisper-base")
        answers: list[tuple[int, bytes]] = []
        audio = (AUDIO / "jfk.wav").read_bytes()
        asking = threading.Thread(target=lambda: answers.append(transcribe(daemon, audio)))
        asking.start()
        wait_until(daemon, lambda: daemon.model("whisper-base")["leases"] == 1)
        with events_of(daemon) as events:
            (tmp_path / "models.d" / "whisper-base.toml").unlink()
            assert daemon.ctl("reload").returncode == 0
            assert daemon.status()["models"]
            asking.join(60)
            assert answers[0][0] == 200
            assert "unloaded" in (event.get("state") for event in events)
        assert transcribe(daemon, audio)[0] == 404


def test_an_idle_model_is_parked_and_then_unloaded(tmp_path: Path, state_dir: Path) -> None:
    settings = '[residency]\nkeep_alive = "0s"\npark_keep_alive = "0s"\n'
    with running(tmp_path, state_dir, settings) as daemon, events_of(daemon) as events:
        assert say(daemon)[0] == 200
        seen = [next(events)["state"] for _ in range(8)]
        assert seen == ["starting", "parked", "loading", "ready", "parking", "parked", "stopping", "unloaded"]
        assert children(daemon.process.pid) == set()


def test_a_model_over_the_budget_is_refused_with_the_numbers(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[residency]\nbudget = "10MiB"\n') as daemon:
        status, body = say(daemon)
        assert status == 507
        assert "10 MiB" in json.loads(body)["error"]["message"]


def test_two_models_that_do_not_fit_together_take_turns(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[residency]\nbudget = "310MiB"\nmax_switch_wait = "0s"\n') as daemon:
        # whisper-base's prior is 300 MiB and hibari's 60 MiB; what is measured is less, so each switch is from priors.
        assert say(daemon)[0] == 200
        assert transcribe(daemon, (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes())[0] == 200
        assert daemon.model("hibari")["state"] == "parked"
        assert daemon.model("whisper-base")["state"] == "ready"


BAD_FILES = {
    "empty": b"",
    "text": b"this is no audio at all" * 50,
    "truncated wav": (AUDIO / "jfk.wav").read_bytes()[:40],
    "wav with no samples": wav(np.zeros(0), 16_000),
    "wav that claims ten hours": wav(np.zeros(1600), 16_000, claimed_bytes=36_000 * 32_000),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_audio_is_a_clear_400(daemon: Daemon, name: str) -> None:
    status, body = transcribe(daemon, BAD_FILES[name])
    assert status == 400, body
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


def test_bad_uploads_do_not_make_the_daemon_grow(daemon: Daemon) -> None:
    """Each is 5 MB, so that one kept anywhere would show."""

    def resident_bytes() -> int:
        lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "RssShmem")))

    def refuse(times: int) -> None:
        for number in range(times):
            bad = (b"no audio", BAD_FILES["wav that claims ten hours"], b"ID3\4\0\0\0\0\0\0")[number % 3]
            assert transcribe(daemon, bad + bytes(5_000_000))[0] == 400

    refuse(12)
    descriptors, before = len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())), resident_bytes()
    refuse(60)
    assert resident_bytes() - before < 10_000_000
    assert len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) <= descriptors + 1


def test_requests_that_cannot_work_have_the_status_that_clients_expect(daemon: Daemon) -> None:
    assert say(daemon, model="nonesuch")[0] == 404
    assert say(daemon, input="")[0] == 400
    assert say(daemon, speed=9)[0] == 400
    assert say(daemon, response_format="ogg")[0] == 400
    assert say(daemon, voice="nobody")[0] == 400
    assert say(daemon, "x" * 4097)[0] == 400
    assert daemon.request("POST", "/v1/audio/speech", b"{", Content_Type="application/json")[0] == 400
    assert transcribe(daemon, b"x", model="nonesuch")[0] == 404
    assert transcribe(daemon, b"x", response_format="xml")[0] == 400
    assert daemon.get("/v1/nonesuch")[0] == 404
    for slash in ("/", "%2F"):
        status, body = daemon.get(f"/v1/models/Qwen{slash}nonesuch")
        assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    assert daemon.get("/v1/audio/speech")[0] == 405
    assert say(daemon, model="whisper-1")[0] == 400


@pytest.mark.parametrize(
    "sent", [b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"B@D / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_http_is_refused_without_a_traceback(daemon: Daemon, sent: bytes) -> None:
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(sent + b"\r\n\r\n")
        assert client.recv(65536).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert daemon.get("/health/live")[0] == 200
    assert "Traceback" not in daemon.log.read_text()


def test_an_upload_over_the_limit_is_413(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[server]\nupload_limit = "100kB"\n') as daemon:
        status, body = transcribe(daemon, bytes(200_000))
        assert status == 413
        assert json.loads(body)["error"]["code"] == "upload_too_large"


def test_silence_has_no_words(daemon: Daemon) -> None:
    status, body = transcribe(daemon, wav(np.zeros(32_000), 16_000))
    assert (status, json.loads(body)["text"]) == (200, "")


def test_a_full_stop_is_spoken_as_silence_for_home_assistant(daemon: Daemon) -> None:
    status, audio = say(daemon, ".", response_format="mp3")
    assert status == 200
    assert audio


def test_metrics_are_in_prometheus_text_format(daemon: Daemon) -> None:
    say(daemon)
    status, body = daemon.get("/metrics")
    assert status == 200
    assert b'audiod_model_state{model="hibari",state="ready"} 1.0' in body
    assert b'audiod_requests_total{endpoint="/v1/audio/speech",model="hibari",status="200"}' in body


def test_sigterm_finishes_what_runs(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir) as daemon:
        daemon.ctl("load", "whisper-base")
        answers: list[tuple[int, bytes]] = []
        audio = (AUDIO / "jfk.wav").read_bytes()
        asking = threading.Thread(target=lambda: answers.append(transcribe(daemon, audio)))
        asking.start()
        wait_until(daemon, lambda: daemon.model("whisper-base")["leases"] == 1)
        assert daemon.stop() == 0
        asking.join(60)
        assert answers[0][0] == 200
        assert not daemon.socket.exists()


def test_killing_the_daemon_leaves_no_process_behind(tmp_path: Path, state_dir: Path) -> None:
    daemon = Daemon(tmp_path, state_dir)
    daemon.start()
    daemon.ctl("load", "hibari")
    pids = children(daemon.process.pid)
    assert len(pids) >= 2
    watched = [os.pidfd_open(pid) for pid in pids]
    daemon.process.kill()
    daemon.process.wait()
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()
    import select

    for pidfd in watched:
        assert select.select([pidfd], [], [], 10)[0], "a process outlived the daemon by 10 s"
        os.close(pidfd)


def test_a_second_daemon_on_the_same_socket_is_refused(daemon: Daemon) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "audiod", "serve", "--port", "0", "--config", daemon.config, "--socket", daemon.socket],
        capture_output=True,
        text=True,
        env=daemon.environment() | {"AUDIOD_STATE_DIR": str(daemon.directory / "other")},
        cwd=TOP,
        timeout=60,
    )
    assert second.returncode == 7
    assert "another audiod answers" in second.stderr


# --- waiting without sleeping -----------------------------------------------------------------------------------------


def wait_until(daemon: Daemon, condition: object) -> None:
    """Ask again and again, each time through a whole audioctl, for at most a minute."""
    assert callable(condition)
    for _ in range(400):
        if condition():
            return
    raise AssertionError(f"never true: {daemon.status()}")
