"""`audioctl top` and `audioctl why` with a real daemon, and top on a real terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemons import Daemon, running, say
from terminals import Terminal, state_of, terminal


def top(daemon: Daemon, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "audioctl", "--socket", str(daemon.socket), "top", *arguments]


def plain(daemon: Daemon, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in daemon.environment().items() if name not in ("COLUMNS", "NO_COLOR")}
    return kept | {"TERM": "xterm"} | more


@pytest.fixture
def page(daemon: Daemon) -> Iterator[Terminal]:
    """top on a terminal of 80 by 24, in its first second."""
    with terminal(top(daemon, "--interval", "0.2"), plain(daemon)) as opened:
        opened.wait_for("q ends")
        yield opened


def as_before(page: Terminal) -> bool:
    return not page.alternate and page.cursor_shown and page.wraps and page.settings_now() == page.settings


# --- why ----------------------------------------------------------------------------------------------------------


def test_why_tells_what_happened_to_a_model(daemon: Daemon) -> None:
    daemon.ctl("unload", "hibari")
    began = time.time()
    assert say(daemon)[0] == 200
    daemon.ctl("park", "hibari")
    story = json.loads(daemon.ctl("why", "tts-1", "--json").stdout)
    assert story["model"] == "hibari"
    moves = [(chapter["state"], chapter["reason"]) for chapter in story["chapters"][-6:]]
    assert moves == [
        ("starting", "wanted"),
        ("parked", "zygote started"),
        ("loading", "wanted"),
        ("ready", "loaded"),
        ("parking", "park asked"),
        ("parked", "park asked"),
    ]
    times = [chapter["at"] for chapter in story["chapters"][-6:]]
    assert times == sorted(times)
    assert began - 0.1 <= times[0] <= times[-1] <= time.time()
    for chapter, following in zip(story["chapters"], story["chapters"][1:], strict=False):
        assert chapter["at"] + chapter["lasted_s"] == pytest.approx(following["at"], abs=0.01)
    assert story["outlook"][0].startswith("it must be loaded to cpu (the last time that took ")


def test_why_is_for_people_too_and_its_advice_helps(daemon: Daemon) -> None:
    daemon.ctl("unload", "hibari")
    told = daemon.ctl("why", "hibari")
    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert lines[0].startswith("hibari has been unloaded for ")
    advice = lines[-1].strip()
    assert advice == "try: audioctl load hibari"
    assert daemon.ctl(*advice.split()[2:]).returncode == 0
    assert "it would be served at once" in daemon.ctl("why", "hibari").stdout


def test_why_of_no_model_is_refused(daemon: Daemon) -> None:
    refused = daemon.ctl("why", "organ")
    assert refused.returncode != 0
    assert refused.stderr == "audioctl: there is no model 'organ'\n  try: audioctl models\n"


# --- top, printed -------------------------------------------------------------------------------------------------


def test_top_counts_what_was_served(daemon: Daemon) -> None:
    before = json.loads(daemon.ctl("--json", "top", "--once").stdout)
    for _ in range(3):
        assert say(daemon, "One, two, three.")[0] == 200
    after = json.loads(daemon.ctl("--json", "top", "--once").stdout)

    def work(document: dict[str, list[dict[str, dict[str, float]]]]) -> dict[str, float]:
        return next(model["work"] for model in document["models"] if str(model["model"]) == "hibari")

    assert work(after)["served"] - work(before)["served"] == 3
    assert work(after)["granted"] - work(before)["granted"] == 3
    assert work(after)["audio_s"] > work(before)["audio_s"] + 1
    assert work(after)["worked_s"] > work(before)["worked_s"]
    rates = next(model["rates"] for model in after["models"] if model["model"] == "hibari")
    assert rates["requests_per_s"] == pytest.approx(work(after)["served"] / after["uptime_s"])


def test_top_writes_a_line_of_json_each_time(daemon: Daemon) -> None:
    command = [*top(daemon, "--interval", "0.1"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=plain(daemon), text=True) as process:
        assert process.stdout is not None
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert second["at"] > first["at"]
    assert second["rates_over_s"] == pytest.approx(second["at"] - first["at"], abs=0.5)


def test_top_into_a_pipe_is_plain_text(daemon: Daemon) -> None:
    with subprocess.Popen(top(daemon, "--interval", "0.1"), stdout=subprocess.PIPE, env=plain(daemon)) as process:
        assert process.stdout is not None
        shown = b"".join(process.stdout.readline() for _ in range(30))
        process.send_signal(signal.SIGTERM)
        process.wait()
    assert shown.count(b"audiod ") >= 2
    assert b"\x1b" not in shown


# --- top, on a terminal -------------------------------------------------------------------------------------------


def test_q_ends_it_and_the_terminal_is_as_it_was(page: Terminal) -> None:
    assert page.alternate
    assert not page.cursor_shown
    page.type("q")
    assert page.wait_for_end() == 0
    assert as_before(page)
    assert page.lines() == [""] * 24  # nothing is left of it


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda page: page.type("\x03"), 130),  # Ctrl-C
        (lambda page: page.program.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda page: page.program.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_however_it_ends_the_terminal_is_as_it_was(
    page: Terminal, end: Callable[[Terminal], None], status: int
) -> None:
    end(page)
    assert page.wait_for_end() == status
    assert as_before(page)
    assert page.lines() == [""] * 24


def test_it_shows_every_model_within_the_window(page: Terminal) -> None:
    lines = page.lines()
    assert lines[0].startswith("audiod 0.1.0 up ")
    header = next(number for number, line in enumerate(lines) if line.startswith("MODEL"))
    shown = {line.split()[0] for line in lines[header + 1 :] if line}
    assert {"hibari", "kokoro-82m", "whisper-base"} <= shown
    assert not page.overflown


def test_it_follows_what_happens(page: Terminal, daemon: Daemon) -> None:
    daemon.ctl("unload", "hibari")

    def row() -> list[str]:
        return next((line.split() for line in page.lines() if line.startswith("hibari ")), ["", ""])

    page.wait_for(lambda: row()[1] == "unloaded", "hibari unloaded")
    speaking = threading.Thread(target=say, args=(daemon, "One, two, three, four. " * 40))
    speaking.start()
    page.wait_for(lambda: row()[1] == "ready", "hibari ready")
    page.wait_for(lambda: row()[-1].endswith("x"), "a rate of audio")
    speaking.join()


def test_it_follows_the_size_of_the_window(page: Terminal) -> None:
    page.resize(50, 8)
    page.wait_for("more lines)")
    assert page.lines()[0].startswith("audiod ")
    assert not page.overflown
    page.resize(100, 30)
    page.wait_for("q ends")
    assert any(80 < len(line) <= 100 for line in page.lines() if line.startswith("cpu "))


def test_it_is_coloured_unless_that_is_not_wanted(page: Terminal, daemon: Daemon) -> None:
    assert page.coloured
    with terminal(top(daemon), plain(daemon, NO_COLOR="1")) as other:
        other.wait_for("q ends")
        assert not other.coloured


def test_it_can_be_suspended(page: Terminal) -> None:
    page.type("\x1a")  # Ctrl-Z
    page.wait_for(lambda: not page.alternate, "the shell's screen")
    while state_of(page.program.pid) != "T":
        os.sched_yield()
    assert as_before(page)
    page.program.send_signal(signal.SIGCONT)
    page.wait_for("q ends")
    assert page.alternate
    page.type("q")
    assert page.wait_for_end() == 0
    assert as_before(page)


def test_it_stays_while_the_daemon_is_restarted(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir) as daemon, terminal(top(daemon, "--interval", "0.1"), plain(daemon)) as page:
        page.wait_for("q ends")
        daemon.stop()
        page.wait_for("audiod is not running")
        assert any(line.startswith("hibari ") for line in page.lines())  # what was seen last
        daemon.start()
        page.wait_for(lambda: page.lines()[0].startswith("audiod 0.1.0 up "), "the new daemon")
        page.type("q")
        assert page.wait_for_end() == 0


def test_without_a_daemon_it_does_not_begin(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "audioctl", "--socket", str(tmp_path / "none"), "top"]
    with terminal(command, Daemon(tmp_path, tmp_path).environment()) as page:
        status = page.wait_for_end()
        assert status not in (0, 130)
        assert "audiod is not running" in page.lines()[0]
        assert as_before(page)
