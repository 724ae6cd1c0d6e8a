"""Races that peers have lost, on real processes: each test is named after the issue where its users met it.

Two copies of a small model, of which only one fits, are switched as fast as requests ask for it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemons import AUDIO, Daemon, running, say, transcribe
from sounds import wav
from watching import children, events_of, happened
from zygotes import recording

ONE_FITS = "140MiB"
"""A hibari worker holds about 75 MiB, and up to 130 after long texts."""

LONG = "This sentence is spoken again and again, so that it takes a while. " * 60


@contextlib.contextmanager
def two(directory: Path, state_dir: Path, **residency: str) -> Iterator[Daemon]:
    """A daemon with the models `hibari` and `hibari-b`, of which one fits."""
    settings = {"budget": ONE_FITS, "max_switch_wait": "0s"} | residency
    lines = "".join(f'{key} = "{value}"\n' for key, value in settings.items())
    daemon = Daemon(directory, state_dir, f"[residency]\n{lines}")
    entry = (directory / "models.d" / "hibari.toml").read_text()
    assert 'ready_bytes = "60MiB"' in entry
    entry = entry.replace('ready_bytes = "60MiB"', 'ready_bytes = "75MiB"')
    (directory / "models.d" / "hibari.toml").write_text(entry)
    (directory / "models.d" / "hibari-b.toml").write_text(entry.replace('id = "hibari"', 'id = "hibari-b"'))
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        daemon.check_log()


def states(events: list[dict[str, Any]], model: str) -> list[str]:
    return [event["state"] for event in events if event["model"] == model]


def test_llama_swap_119_rapid_switching_does_not_hang(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon, events_of(daemon) as events:
        with ThreadPoolExecutor(4) as clients:
            asked = [("hibari", "hibari-b")[number % 2] for number in range(40)]
            answers = list(clients.map(lambda model: say(daemon, model=model, voice="heart")[0], asked))
        assert answers == [200] * 40
        on_device: set[str] = set()
        switches = 0
        for event in happened(daemon, events):
            if event["state"] in ("loading", "ready", "draining", "parking"):
                switches += event["state"] == "loading"
                on_device.add(event["model"])
            else:
                on_device.discard(event["model"])
            assert len(on_device) <= 1, "both were on the device at a time"
        assert switches >= 4
        assert {model["queue"] + model["leases"] for model in daemon.status()["models"]} == {0}


def test_llama_swap_281_a_model_that_many_ask_for_at_once_is_loaded_once(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon, events_of(daemon) as events:
        with ThreadPoolExecutor(12) as clients:
            assert {answer[0] for answer in clients.map(lambda _: say(daemon), range(12))} == {200}
        assert states(happened(daemon, events), "hibari") == ["starting", "parked", "loading", "ready"]


def test_llama_swap_588_a_model_is_not_swapped_out_while_it_answers(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon:
        daemon.ctl("park", "hibari-b")
        whole = say(daemon, LONG)[1]
        with ThreadPoolExecutor(1) as clients, events_of(daemon) as events:
            answering = clients.submit(say, daemon, LONG)
            wait_for_lease(daemon, "hibari")
            assert say(daemon, model="hibari-b", voice="heart")[0] == 200
            assert answering.result() == (200, whole)
            assert states(happened(daemon, events), "hibari") == ["draining", "parking", "parked"]


def test_llama_swap_946_a_request_that_arrives_during_an_idle_unload_is_served(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir, keep_alive="0s", park_keep_alive="0s") as daemon:
        for moment in ("parking", "parked", "stopping", "unloaded") * 3:
            with events_of(daemon) as events:
                assert say(daemon)[0] == 200
                next(event for event in events if event["state"] == moment)
                assert say(daemon)[0] == 200


def test_llama_swap_727_a_load_that_nobody_waits_for_any_more_wedges_nothing(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon:
        for moment, rests in (("starting", "parked"), ("loading", "ready")):
            with events_of(daemon) as events:
                client = leave_after(daemon, events, moment)
                client.join(30)
                assert next(events)["state"] == rests, "what has begun is finished, and no more is done"
            assert say(daemon)[0] == 200
            assert daemon.model("hibari")["queue"] == 0
            daemon.ctl("unload", "hibari")


def test_speaches_unload_while_busy_makes_no_second_copy(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon:
        whole = say(daemon, LONG)[1]
        with ThreadPoolExecutor(2) as clients, events_of(daemon) as events:
            answering = clients.submit(say, daemon, LONG)
            wait_for_lease(daemon, "hibari")
            unloading = clients.submit(daemon.ctl, "unload", "hibari")
            next(event for event in events if event["state"] == "draining")
            assert say(daemon)[0] == 200
            assert answering.result() == (200, whole)
            assert unloading.result().returncode == 0
            seen = states(happened(daemon, events), "hibari")
        assert seen == ["stopping", "unloaded", "starting", "parked", "loading", "ready"]


def test_speaches_a_load_that_failed_is_not_listed_as_resident(tmp_path: Path, state_dir: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(state_dir / "models" / "whisper-base", broken)
    (broken / "model.bin").write_bytes(b"these are no weights")
    daemon = Daemon(tmp_path, state_dir)
    entry = tmp_path / "models.d" / "whisper-base.toml"
    entry.write_text(entry.read_text().replace("[[weights]]", f'path = "{broken}"\n\n[[weights]]', 1))
    daemon.start()
    try:
        assert daemon.ctl("load", "whisper-base").returncode != 0
        failed = daemon.model("whisper-base")
        assert (failed["state"], failed["device_bytes"], failed["worker_pid"]) == ("failed", 0, None)
        status, body = transcribe(daemon, (AUDIO / "jfk.wav").read_bytes())
        assert status == 503
        assert "audioctl load whisper-base" in json.loads(body)["error"]["message"]
        shutil.copy(state_dir / "models" / "whisper-base" / "model.bin", broken / "model.bin")
        assert daemon.ctl("load", "whisper-base").returncode == 0, "an order does not wait for the pause to end"
    finally:
        daemon.stop()


def test_speaches_a_model_that_is_loaded_by_order_stays_though_nothing_is_kept(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir, keep_alive="0s") as daemon, events_of(daemon) as events:
        assert daemon.ctl("load", "hibari").returncode == 0
        assert daemon.model("hibari")["state"] == "ready"
        assert say(daemon)[0] == 200
        next(event for event in events if event["state"] == "parking")


def test_ollama_11997_memory_of_a_crashed_worker_is_not_waited_for(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon, events_of(daemon) as events:
        assert say(daemon)[0] == 200
        os.kill(daemon.model("hibari")["worker_pid"], signal.SIGKILL)
        next(event for event in events if event["state"] == "parked" and event["message"].endswith("SIGKILL"))
        assert say(daemon, model="hibari-b", voice="heart")[0] == 200
        assert "parking" not in states(happened(daemon, events), "hibari"), "there was nothing to wait for"


def test_localai_7269_a_model_is_unloaded_to_make_room_for_the_next(tmp_path: Path, state_dir: Path) -> None:
    """Of host memory too: parked models go when another has to be started."""
    with two(tmp_path, state_dir, park_budget="250MiB") as daemon:
        assert say(daemon)[0] == 200
        zygote = daemon.model("hibari")["zygote_pid"]
        assert say(daemon, model="hibari-b", voice="heart")[0] == 200
        assert daemon.model("hibari")["state"] == "unloaded"
        assert not Path(f"/proc/{zygote}").exists()


@pytest.mark.parametrize("victim", ["zygote_pid", "worker_pid"])
def test_a_process_that_dies_while_a_model_loads_or_serves_strands_nobody(
    tmp_path: Path, state_dir: Path, victim: str
) -> None:
    with two(tmp_path, state_dir) as daemon, events_of(daemon) as events:
        for moment in ("loading", "ready", "draining"):
            with ThreadPoolExecutor(3) as clients:
                waiting = [clients.submit(say, daemon, LONG) for _ in range(2)]
                if moment == "draining":  # who comes first to an idle model has it parked at once
                    wait_for_lease(daemon, "hibari")
                waiting.append(clients.submit(say, daemon, LONG, model="hibari-b"))
                event = next(event for event in events if event["state"] == moment)
                pid = daemon.model(event["model"])[victim]
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                for answer in waiting:
                    with contextlib.suppress(http.client.IncompleteRead):  # cut off, since it had begun
                        assert answer.result()[0] in (200, 503)
            happened(daemon, events)
        daemon.ctl("load", "hibari")
        assert say(daemon)[0] == 200


def test_whisper_cpp_1803_a_short_clip_is_served_in_the_middle_of_a_long_file(tmp_path: Path, state_dir: Path) -> None:
    """The file stands still between two segments, and loses none."""
    names = ("jfk", "librispeech-6930-75918-0001", "librispeech-6930-75918-0000")
    spoken = [recording(name).astype(np.float64) for name in names]
    clip = wav(spoken[0][: 3 * 16_000], 16_000)
    file = wav(np.concatenate(spoken * 3), 16_000)
    with running(tmp_path, state_dir) as daemon, ThreadPoolExecutor(1) as clients:
        whole = json.loads(transcribe(daemon, file)[1])["text"]
        answering = clients.submit(transcribe, daemon, file)
        wait_for_lease(daemon, "whisper-base")
        status, body = transcribe(daemon, clip)
        assert (status, "fellow Americans" in json.loads(body)["text"]) == (200, True)
        assert not answering.done(), "it had to wait for the end of the file"
        assert json.loads(answering.result()[1])["text"] == whole


def test_after_many_switches_nothing_is_left_over(tmp_path: Path, state_dir: Path) -> None:
    with two(tmp_path, state_dir) as daemon:

        def switch(times: int) -> None:
            for number in range(times):
                assert say(daemon, model=("hibari", "hibari-b")[number % 2], voice="heart")[0] == 200

        switch(6)
        open_files = Path(f"/proc/{daemon.process.pid}/fd")
        descriptors = len(list(open_files.iterdir()))
        processes = len(children(daemon.process.pid))
        switch(20)
        for _ in range(400):  # the last connections are closed a moment after their answers
            if (left := len(list(open_files.iterdir()))) <= descriptors:
                break
        assert left <= descriptors
        assert len(children(daemon.process.pid)) == processes
        daemon.ctl("unload", "hibari", "hibari-b")
        assert all(model["state"] == "unloaded" for model in daemon.status()["models"])


# --- steps that several take -----------------------------------------------------------------------------------------


def wait_for_lease(daemon: Daemon, model: str) -> None:
    for _ in range(400):
        if daemon.model(model)["leases"]:
            return
    raise AssertionError("no lease was given")


def leave_after(daemon: Daemon, events: Iterator[dict[str, Any]], moment: str) -> threading.Thread:
    """Ask for speech and break the connection off as soon as `moment` has come."""
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port))
    body = json.dumps({"model": "hibari", "voice": "heart", "input": "Hello."})
    connection.request("POST", "/v1/audio/speech", body, {"Content-Type": "application/json"})

    def leave() -> None:
        next(event for event in events if event["state"] == moment)
        connection.close()

    client = threading.Thread(target=leave)
    client.start()
    return client
