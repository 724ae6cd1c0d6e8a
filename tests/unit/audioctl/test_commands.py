"""What the verbs show, from the structs that the daemon sends."""

from __future__ import annotations

import io
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioctl.commands import events, models, status
from audioctl.output import Output, display_width
from audioproto.control import Event, Memory, ModelInfo, ModelStatus, Status
from audioproto.types import Residency, Task, Voice

GIB = 2**30

READY = ModelStatus(
    "hibari", "hibari", Task.SPEAK, Residency.READY, "cuda:0", 1_700_000_000, GIB, 301, 302, 2, 1, pinned=True
)
PARKED = ModelStatus(
    "qwen3-asr-0.6b",
    "qwen3_asr",
    Task.TRANSCRIBE,
    Residency.PARKED,
    "cuda:0",
    host_bytes=2 * GIB,
    zygote_pid=201,
    idle_s=125,
    expires_s=3475,
)
UNLOADED = ModelStatus("kokoro-82m", "kokoro", Task.SPEAK, Residency.UNLOADED, "cuda:0")
FAILED = ModelStatus(
    "whisper-base",
    "faster_whisper",
    Task.TRANSCRIBE,
    Residency.FAILED,
    "cuda:0",
    reason="the worker ended while loading",
    log=[f"line {number}" for number in range(20)] + ["\x1b[31mout of memory\x1b[0m"],
)


def page(*listed: ModelStatus, draining: bool = False, queue: int = 0, memory: Memory | None = None) -> list[str]:
    shown = Status(
        version="0.1.0",
        protocol=1,
        pid=812,
        uptime_s=11100,
        http=["http://127.0.0.1:8000"],
        config="/etc/audiod/audiod.toml",
        draining=draining,
        queue=queue,
        memory=[memory or Memory("cuda:0", "NVIDIA T4", 16 * GIB, 12 * GIB, 15 * GIB, 3 * GIB)],
        models=list(listed),
    )
    return status.render(shown, Output(io.StringIO(), io.StringIO(), environment={"COLUMNS": "80"}))


def test_status_has_a_row_for_each_model() -> None:
    header, ready, parked, unloaded, *_ = page(READY, PARKED, UNLOADED)
    assert header.split() == ["MODEL", "ENGINE", "STATE", "MEMORY", "PID", "LEASES", "QUEUE", "IDLE", "EXPIRES"]
    assert ready.split() == ["hibari", "hibari", "ready", "1.58", "GiB", "302", "2", "1", "-", "pinned"]
    assert parked.split() == ["qwen3-asr-0.6b", "qwen3_asr", "parked", "-", "201", "0", "0", "2m05s", "57m55s"]
    assert unloaded.split() == ["kokoro-82m", "kokoro", "unloaded", *["-"] * 6]


def test_status_shows_memory_of_the_device_and_of_the_host() -> None:
    lines = page(READY, PARKED)
    assert "cuda:0   [####----------------] 3 GiB of 15 GiB budget used" in lines
    assert "         NVIDIA T4: 12 GiB of 16 GiB free" in lines
    assert "host     3 GiB of host memory held by 2 zygotes" in lines


def test_status_shows_what_other_programs_hold_where_that_is_known() -> None:
    known = Memory("cuda:0", "NVIDIA T4", 16 * GIB, 12 * GIB, 15 * GIB, 3 * GIB, GIB)
    assert "         1 GiB held by other programs" in page(READY, memory=known)
    assert "other programs" not in "\n".join(page(READY))


def test_status_shows_where_the_api_is_and_what_the_daemon_is() -> None:
    lines = page()
    assert "http     http://127.0.0.1:8000" in lines
    assert "audiod   0.1.0, pid 812, up 3h05m, /etc/audiod/audiod.toml" in lines


def test_status_says_that_requests_wait_and_that_the_daemon_drains() -> None:
    text = "\n".join(page(draining=True, queue=1))
    assert "1 request waiting" in text
    assert "`audioctl undrain` ends it" in text


def test_status_ends_with_why_a_model_failed_and_what_to_do() -> None:
    lines = page(READY, FAILED)
    start = lines.index("whisper-base failed: the worker ended while loading")
    assert lines[start + 1 : -1] == [f"  | line {number}" for number in range(13, 20)] + ["  | out of memory"]
    assert lines[-1] == "  try: audioctl load whisper-base"


STATUSES = st.builds(
    ModelStatus,
    model=st.text(min_size=1, max_size=60),
    engine=st.text(min_size=1, max_size=40),
    task=st.sampled_from(Task),
    state=st.sampled_from(Residency),
    device=st.just("cuda:0"),
    device_bytes=st.integers(0, 2**40),
    host_bytes=st.integers(0, 2**40),
    zygote_pid=st.none() | st.integers(1, 4194304),
    worker_pid=st.none() | st.integers(1, 4194304),
    leases=st.integers(0, 999),
    queue=st.integers(0, 9999),
    idle_s=st.none() | st.floats(0, 1e7),
    expires_s=st.none() | st.floats(0, 1e7),
    pinned=st.booleans(),
)


@given(st.lists(STATUSES, max_size=8))
def test_the_table_of_status_fits_80_columns(listed: list[ModelStatus]) -> None:
    lines = page(*listed)
    assert all(display_width(line) <= 80 for line in lines[: len(listed) + 1])


def info(name: str, *, installed: bool, languages: int = 0, missing: str = "", download_bytes: int = 0) -> ModelInfo:
    return ModelInfo(
        model=name,
        engine="faster_whisper",
        task=Task.TRANSCRIBE,
        description="",
        languages=["en", "zh", "ja", "ko", "de"][:languages],
        voices=[Voice("alloy"), Voice("nova")],
        aliases=["whisper-1"],
        licence="MIT",
        installed=installed,
        missing=missing,
        download_bytes=download_bytes,
    )


def test_models_are_listed_with_languages_in_short_and_voices_counted() -> None:
    out = Output(io.StringIO(), io.StringIO(), environment={})
    _, row = models.render([info("whisper-base", installed=True, languages=5)], out)
    expected = ["whisper-base", "transcribe", "faster_whisper", "yes", "en", "zh", "ja", "+2", "2", "whisper-1"]
    assert row.split() == expected


def test_a_model_that_is_not_installed_says_what_is_missing_and_how_to_get_it() -> None:
    out = Output(io.StringIO(), io.StringIO(), environment={})
    lines = models.render([info("hibari", installed=False, missing="weights", download_bytes=300 * 2**20)], out)
    assert lines[-2:] == ["hibari lacks weights, 300 MiB to fetch", "  try: audioctl models pull hibari"]


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            Event(0, "state", "0.8 s", model="hibari", previous="loading", state="ready"),
            "state       hibari loading -> ready: 0.8 s",
        ),
        (Event(0, "worker_died", "signal 9", model="hibari"), "worker_died hibari: signal 9"),
        (Event(0, "drain", "3 requests run"), "drain       3 requests run"),
        (
            Event(0, "state", "", model="hibari", previous="parked", state="loading"),
            "state       hibari parked -> loading",
        ),
    ],
)
def test_an_event_is_one_line_in_local_time(event: Event, shown: str) -> None:
    line = events.render(event, Output(io.StringIO(), io.StringIO(), environment={}))
    assert line == f"{time.strftime('%H:%M:%S', time.localtime(0))} {shown}"
    assert re.match(r"\d\d:\d\d:\d\d ", line)
