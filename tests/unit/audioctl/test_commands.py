"""What the verbs show, from the structs that the daemon sends."""

from __future__ import annotations

import io
import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioctl.commands import events, models, runtime, status, top, why
from audioctl.output import Output, display_width
from audioproto.control import Chapter, Event, Memory, ModelInfo, ModelStatus, Needs, RuntimeInfo, Status, Story, Work
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


def test_status_says_which_models_are_staged_and_how_much_that_takes() -> None:
    staged = msgspec.structs.replace(READY, model="tts", needs=Needs(staged_bytes=3 * GIB))
    line = "tts is staged: 3 GiB of cuda:0 are set aside for what it needs there at a time"
    assert line in page(staged)
    assert line not in page(msgspec.structs.replace(staged, device_bytes=0))


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


def test_status_says_how_long_a_new_request_would_wait() -> None:
    waiting = msgspec.structs.replace(PARKED, queue=3, estimate_s=12.4)
    assert "qwen3-asr-0.6b: 3 requests waiting; a new one would wait for about 12s" in page(READY, waiting)


# --- top ----------------------------------------------------------------------------------------------------------


def watched(*listed: ModelStatus, width: int = 80, over_s: float = 10.0) -> list[str]:
    shown = Status("0.1.0", 1, 812, 11100, [], "", False, sum(model.queue for model in listed),
                   [Memory("cuda:0", "NVIDIA T4", 16 * GIB, 12 * GIB, 15 * GIB, 3 * GIB)], list(listed))  # fmt: skip
    out = Output(io.StringIO(), io.StringIO(), environment={"COLUMNS": str(width)})
    return top.render(shown, {model.model: top.rates(model.work, Work(), over_s) for model in listed}, out)


def test_top_makes_rates_of_what_the_daemon_counts() -> None:
    before = Work(served=10, refused=1, granted=11, waited_s=20, worked_s=30, audio_s=100, loads=2)
    after = Work(served=16, refused=2, granted=15, waited_s=28, worked_s=39, audio_s=160, loads=3)
    found = top.rates(after, before, 10.0)
    assert found == top.Rates(0.6, 0.1, 2.0, 0.9, 6.0, 6.0)
    assert top.rates(after, after, 10.0).waited_s is None


def test_top_shows_who_works_who_waits_and_how_fast() -> None:
    busy = msgspec.structs.replace(
        READY, queue=4, estimate_s=7.0, work=Work(served=30, granted=32, waited_s=96, worked_s=9.5, audio_s=123)
    )
    lines = watched(UNLOADED, busy, PARKED)
    assert lines[0] == "audiod 0.1.0 up 3h05m, ready; 2 running, 4 waiting, 180 req/min"
    assert lines[1].startswith("cuda:0   [########---")
    assert lines[1].endswith("] 3 GiB of 15 GiB, 12 GiB free")
    assert len(lines[1]) == 80
    header, first, second, last = lines[4:8]
    assert header.split() == ["MODEL", "STATE", "MEMORY", "RUN", "WAIT", "REQ/MIN", "WAITED", "BUSY", "AUDIO"]
    assert first.split() == ["hibari", "ready", "1.58", "GiB", "2", "4", "180", "3.0s", "95%", "12.3x"]
    assert second.split() == ["qwen3-asr-0.6b", "parked", "-", "0", "0", "0", "-", "0%", "-"]
    assert last.split() == ["kokoro-82m", "unloaded", *["-"] * 7]
    assert lines[8] == "hibari: a new request would wait for about 7.0s"


WORK = st.builds(
    Work,
    served=st.integers(0, 10**6),
    refused=st.integers(0, 10**6),
    granted=st.integers(0, 10**6),
    waited_s=st.floats(0, 1e9),
    worked_s=st.floats(0, 1e6),
    audio_s=st.floats(0, 1e7),
)


@given(st.lists(st.tuples(STATUSES, WORK, st.none() | st.floats(0, 600)), max_size=8))
def test_top_fits_80_columns(listed: list[tuple[ModelStatus, Work, float | None]]) -> None:
    models = [msgspec.structs.replace(model, work=work, estimate_s=wait_s) for model, work, wait_s in listed]
    assert all(display_width(line) <= 80 for line in watched(*models, over_s=600))


# --- why ----------------------------------------------------------------------------------------------------------

AT = 1_700_000_000.0

STORY = Story(
    "hibari",
    [
        Chapter(AT, Residency.UNLOADED, 60.0, "the daemon was started"),
        Chapter(AT + 60, Residency.STARTING, 8.2, "wanted"),
        Chapter(AT + 68.2, Residency.PARKED, 0.0, "zygote started"),
        Chapter(AT + 68.2, Residency.LOADING, 0.043, "wanted"),
        Chapter(AT + 68.243, Residency.READY, 300.0, "loaded"),
        Chapter(AT + 368.243, Residency.PARKING, 0.2, "evicted for kokoro-82m"),
        Chapter(AT + 368.443, Residency.PARKED, 125.0, "evicted for kokoro-82m"),
    ],
    whole=True,
    outlook=["it must be loaded to cpu", "kokoro-82m would be parked"],
    estimate_s=2.0,
    hint="audioctl load hibari",
)


def told(story: Story, *, shown: int = 100, later_s: float = 500.0, width: int = 80) -> list[str]:
    out = Output(io.StringIO(), io.StringIO(), environment={"COLUMNS": str(width)})
    return why.render(story, out, AT + later_s, shown)


def test_why_tells_the_state_its_reason_and_how_it_came_to_that() -> None:
    lines = told(STORY)
    assert lines[0] == "hibari has been parked for 2m05s: evicted for kokoro-82m"
    assert lines[2].split() == ["SINCE", "STATE", "FOR", "BECAUSE"]
    assert [line.split()[1:3] for line in lines[3:10]] == [
        ["unloaded", "1m00s"],
        ["starting", "8.2s"],
        ["parked", "0ms"],
        ["loading", "43ms"],
        ["ready", "5m00s"],
        ["parking", "200ms"],
        ["parked", "2m05s"],
    ]
    assert lines[3].split()[0] == time.strftime("%H:%M:%S", time.localtime(AT))
    assert lines[11:] == [
        "If a request came now:",
        "  it must be loaded to cpu",
        "  kokoro-82m would be parked",
        "  it would be served in about 2.0s",
        "  try: audioctl load hibari",
    ]


def test_why_shows_the_latest_and_how_to_get_the_rest() -> None:
    lines = told(STORY, shown=2)
    assert [line.split()[1] for line in lines[3:5]] == ["parking", "parked"]
    assert lines[5] == "earlier: audioctl why hibari --all"
    lines = told(msgspec.structs.replace(STORY, whole=False))
    assert "earlier: journalctl -u audiod AUDIOD_MODEL=hibari" in lines


def test_why_names_the_day_of_what_is_long_ago() -> None:
    assert told(STORY, later_s=5 * 86400)[3].startswith(time.strftime("%m-%d %H:%M:%S", time.localtime(AT)))


@given(st.text(max_size=200), st.text(min_size=1, max_size=60), st.floats(0, 1e9))
def test_the_table_of_why_fits_80_columns(reason: str, name: str, lasted_s: float) -> None:
    chapter = Chapter(AT, Residency.FAILED, lasted_s, reason)
    lines = told(msgspec.structs.replace(STORY, model=name, chapters=[chapter] * 3, estimate_s=None, hint=""))
    assert all(display_width(line) <= 80 for line in lines[2:6])
    assert not any("\n" in line for line in lines)


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


def test_runtimes_are_listed_with_their_torch_and_what_should_be_done() -> None:
    out = Output(io.StringIO(), io.StringIO(), environment={})
    built = RuntimeInfo("kokoro", ["kokoro-82m"], True, disk_bytes=300 * 2**20)
    other = RuntimeInfo("qwen-asr", ["a", "b"], True, torch="cpu", fits="cu126", reason="it runs Tesla P40 (6.1)")
    fresh = RuntimeInfo("tts", [], False, torch="cu130", fits="cu130", download_bytes=2 * 2**30)
    stuck = RuntimeInfo("odd", [], False, reason="no build of torch fits this host")
    lines = runtime.render([built, other, fresh, stuck], out)
    assert lines[1].split() == ["kokoro", "yes", "-", "300", "MiB", "kokoro-82m"]
    assert lines[2].split()[:3] == ["qwen-asr", "yes", "cpu"]
    assert lines[3].split()[:4] == ["tts", "no", "cu130", "~2"]
    assert lines[5:] == [
        "",
        "qwen-asr should have torch for cu126 here: it runs Tesla P40 (6.1)",
        "  try: audioctl runtime install qwen-asr",
        "",
        "odd cannot be installed: no build of torch fits this host",
    ]


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
