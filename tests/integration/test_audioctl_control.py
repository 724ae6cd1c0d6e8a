"""audioctl against a control socket: what it asks, what it shows, and how it ends when the answer goes wrong."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from audioctl_peer import Server, audioctl, environment, line_of, serving, start
from audioproto import PROTOCOL_VERSION, __version__
from audioproto.control import Event, Memory, ModelInfo, ModelList, ModelStatus, Outcome, Progress, Status, Version
from audioproto.errors import DaemonUnreachable, ErrorBody, ModelNotFound, ModelTooLarge, Unavailable
from audioproto.types import Residency, Task
from daemons import TOP

GIB = 2**30


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(socket=str(tmp_path / "control.sock")) as server:
        yield server


def status() -> Status:
    return Status(
        version="0.1.0",
        protocol=PROTOCOL_VERSION,
        pid=812,
        uptime_s=60,
        http=[],
        config="",
        draining=False,
        queue=0,
        memory=[Memory("cpu", "host memory", 32 * GIB, 20 * GIB, 16 * GIB, GIB)],
        models=[
            ModelStatus("hibari", "hibari", Task.SPEAK, Residency.READY, "cpu", GIB, worker_pid=302),
            ModelStatus("whisper-base", "faster_whisper", Task.TRANSCRIBE, Residency.FAILED, "cpu", reason="no room"),
        ],
    )


def catalogue() -> ModelList:
    def model(name: str, alias: str) -> ModelInfo:
        return ModelInfo(name, "engine", Task.SPEAK, "", ["en"], [], [alias], "MIT", installed=True)

    return ModelList([model("hibari", "tts-1"), model("whisper-base", "whisper-1")])


# --- answers that come at once ------------------------------------------------------------------------------------


async def test_status_shows_models_and_memory(control: Server) -> None:
    control.says("/v1/status", status())
    ended = await audioctl("status", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.err) == (0, "")
    assert "hibari" in ended.out
    assert "1 GiB of 16 GiB budget used" in ended.out
    assert "whisper-base failed: no room" in ended.out


async def test_a_health_check_learns_from_the_exit_status_whether_the_daemon_is_ready(control: Server) -> None:
    control.says("/v1/status", status())
    ended = await audioctl("status", "--ready", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.out, ended.err) == (0, "ready\n", "")
    unready = msgspec.structs.replace(status(), readiness="starting", unready_reason="preloading hibari")
    control.says("/v1/status", unready)
    ended = await audioctl("status", "--ready", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.out) == (Unavailable.exit_status, "")
    assert "starting: preloading hibari" in ended.err


async def test_status_imports_no_http_client_to_get_its_answer(control: Server) -> None:
    control.says("/v1/status", status())
    program = (
        "import sys; from audioctl.__main__ import main; sys.argv = ['audioctl', 'status']; assert main() == 0; "
        "print(*sys.modules, file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env=environment(AUDIOD_SOCKET=control.socket),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    imported = {module.partition(".")[0] for module in (await process.communicate())[1].decode().split()}
    assert "msgspec" in imported
    assert not imported & {"http", "email", "asyncio", "aiohttp"}


async def test_json_keeps_what_only_a_newer_daemon_knows(control: Server) -> None:
    answer = {**msgspec.to_builtins(status()), "moon_phase": "waxing"}
    control.says("/v1/status", answer)
    ended = await audioctl("status", "--json", AUDIOD_SOCKET=control.socket)
    assert msgspec.json.decode(ended.out) == answer


async def test_watch_shows_it_again_until_interrupted(control: Server) -> None:
    control.says("/v1/status", status())
    process = await start("status", "--watch", "0.01", "--json", AUDIOD_SOCKET=control.socket)
    for _ in range(3):
        assert msgspec.json.decode(await line_of(process), type=Status) == status()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_status_fits_the_terminal_and_is_coloured_there(control: Server) -> None:
    control.says("/v1/status", status())
    for settings, coloured in (({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)):
        leader, follower = pty.openpty()
        termios.tcsetwinsize(follower, (24, 70))
        with os.fdopen(leader, "rb") as screen:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "audioctl", "status"),
                env=environment(AUDIOD_SOCKET=control.socket, **settings),
                stdout=follower,
            )
            assert await process.wait() == 0
            os.close(follower)
            shown = await asyncio.to_thread(os.read, screen.fileno(), 65536)
        assert (b"\x1b[32mready\x1b[0m" in shown) == coloured
        table = re.sub(rb"\x1b\[\d*m", b"", shown).decode().partition("\r\n\r\n")[0].split("\r\n")
        assert max(map(len, table)) <= 70
        assert "whisper-base faster_whisp… failed" in table[2]


async def test_names_are_listed_for_completion(control: Server) -> None:
    control.says("/v1/models", catalogue())
    ended = await audioctl("models", "--names", AUDIOD_SOCKET=control.socket)
    assert ended.out.split() == ["hibari", "whisper-base"]


async def test_bash_completes_models_by_asking_the_daemon(control: Server, tmp_path: Path) -> None:
    control.says("/v1/models", catalogue())
    shim = tmp_path / "audioctl"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m audioctl "$@"\n')
    shim.chmod(0o755)
    script = TOP / "packaging" / "completion" / "audioctl.bash"
    process = await asyncio.create_subprocess_exec(
        *("bash", "--norc", "-c"),
        f'. {script}; COMP_WORDS=(audioctl load "w"); COMP_CWORD=2; _audioctl; echo "${{COMPREPLY[@]}}"',
        env=environment(AUDIOD_SOCKET=control.socket, PATH=f"{tmp_path}:{os.environ['PATH']}"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert (await process.communicate())[0] == b"whisper-base\n"


async def test_version_warns_where_the_two_speak_different_protocols(control: Server) -> None:
    control.says("/v1/version", Version(__version__, PROTOCOL_VERSION))
    same = await audioctl("version", AUDIOD_SOCKET=control.socket)
    assert same.out.split("\n")[1].split() == ["audiod", __version__, "(protocol", f"{PROTOCOL_VERSION})"]
    assert same.err == ""
    control.says("/v1/version", Version("9.0", PROTOCOL_VERSION + 1))
    newer = await audioctl("version", AUDIOD_SOCKET=control.socket)
    assert "warning: the two speak different protocols" in newer.err
    assert newer.status == 0


@pytest.mark.parametrize("verb", ["reload", "undrain"])
async def test_what_was_done_is_said(control: Server, verb: str) -> None:
    control.says(f"/v1/{verb}", Outcome("3 models, 1 changed"))
    ended = await audioctl(verb, AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.out, ended.err) == (0, "3 models, 1 changed\n", "")


# --- answers that go wrong ----------------------------------------------------------------------------------------


async def test_the_daemons_refusal_is_shown_with_its_hint_and_exit_status(control: Server) -> None:
    control.says("/v1/load", ErrorBody("model_not_found", "there is no model x", "audioctl models"), status=404)
    ended = await audioctl("load", "x", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.out) == (ModelNotFound.exit_status, "")
    assert ended.err == "audioctl: there is no model x\n  try: audioctl models\n"


async def test_a_refusal_without_words_shows_the_http_status(control: Server) -> None:
    control.says("/v1/status", b"<html>", status=500)
    ended = await audioctl("status", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.err.split("\n")[0]) == (1, "audioctl: the daemon answered with HTTP status 500")


async def test_an_answer_of_another_kind_is_an_error_and_no_traceback(control: Server) -> None:
    control.says("/v1/status", b'{"version": 3}')
    ended = await audioctl("status", AUDIOD_SOCKET=control.socket)
    assert ended.status == 1
    assert "makes no sense here" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the daemon hung up without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not audiod"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "ended in the middle of its answer"),
    ],
)
async def test_a_peer_that_breaks_off_or_is_another_is_an_error(tmp_path: Path, answer: bytes, message: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    path = str(tmp_path / "control.sock")
    async with await asyncio.start_unix_server(serve, path):
        ended = await audioctl("status", AUDIOD_SOCKET=path)
    assert ended.status == DaemonUnreachable.exit_status
    assert message in ended.err


# --- work that takes time -----------------------------------------------------------------------------------------


async def test_load_shows_progress_as_it_comes_and_waits_for_the_end(control: Server) -> None:
    finish = asyncio.Event()
    control.streams("/v1/load", Progress("starting"), Progress("ready in 0.8 s", done=True), then=finish)
    process = await start("load", "hibari", AUDIOD_SOCKET=control.socket)
    assert await line_of(process) == "starting\n"
    finish.set()
    assert await line_of(process) == "ready in 0.8 s\n"
    assert await process.wait() == 0
    assert control.bodies == [("/v1/load", b'{"model":"hibari"}')]


async def test_without_waiting_the_accepted_load_is_left_to_the_daemon(control: Server) -> None:
    never = asyncio.Event()
    control.streams("/v1/load", Progress("accepted"), Progress("ready", done=True), then=never)
    ended = await audioctl("load", "--no-wait", "hibari", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.out) == (0, "accepted\n")
    await control.left.wait()


async def test_drain_waits_only_where_asked(control: Server) -> None:
    finish = asyncio.Event()
    control.streams("/v1/drain", Progress("2 requests run"), Progress("drained", done=True), then=finish)
    assert (await audioctl("drain", AUDIOD_SOCKET=control.socket)).out == "2 requests run\n"
    finish.set()
    assert (await audioctl("drain", "--wait", AUDIOD_SOCKET=control.socket)).out == "2 requests run\ndrained\n"


async def test_one_failure_does_not_stop_the_others_and_sets_the_exit_status(control: Server) -> None:
    async def load(request: web.Request) -> web.StreamResponse:
        model = msgspec.json.decode(await request.read())["model"]
        failure = Progress("", error=ErrorBody("model_too_large", "needs 9 GiB of 6 GiB"))
        line = failure if model == "big" else Progress("ready" if model == "a" else "b is ready", done=True)
        return web.Response(body=msgspec.json.encode(line) + b"\n")

    control.answers["/v1/load"] = load
    ended = await audioctl("load", "a", "big", "b", AUDIOD_SOCKET=control.socket)
    assert ended.out == "a: ready\nb is ready\n"
    assert ended.err == "audioctl: big: needs 9 GiB of 6 GiB\n"
    assert ended.status == ModelTooLarge.exit_status


async def test_progress_in_json_names_the_model(control: Server) -> None:
    control.streams("/v1/pull", Progress("fetching"), Progress("installed", done=True))
    ended = await audioctl("--json", "models", "pull", "hibari", AUDIOD_SOCKET=control.socket)
    assert [msgspec.json.decode(line) for line in ended.out.splitlines()] == [
        {"model": "hibari", "message": "fetching"},
        {"model": "hibari", "message": "installed", "done": True},
    ]


async def test_a_daemon_that_goes_away_before_the_end_is_an_error(control: Server) -> None:
    control.streams("/v1/unload", Progress("waiting for 1 request"))
    ended = await audioctl("unload", "--force", "hibari", AUDIOD_SOCKET=control.socket)
    assert ended.status == DaemonUnreachable.exit_status
    assert "hibari: the daemon went away before it was done" in ended.err
    assert control.bodies == [("/v1/unload", b'{"model":"hibari","force":true}')]


# --- events -------------------------------------------------------------------------------------------------------


async def test_events_are_shown_as_they_happen_and_filtered_by_alias(control: Server) -> None:
    never = asyncio.Event()
    wanted = Event(1.0, "state", "0.8 s", model="hibari", previous="loading", state="ready")
    other = Event(1.0, "evicted", "for hibari", model="whisper-base")
    control.says("/v1/models", catalogue())
    control.streams("/v1/events", other, wanted, other, then=never)
    process = await start("events", "--model", "tts-1", "--json", AUDIOD_SOCKET=control.socket)
    assert msgspec.json.decode(await line_of(process), type=Event) == wanted
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_events_of_no_model_are_refused(control: Server) -> None:
    control.says("/v1/models", catalogue())
    ended = await audioctl("events", "--model", "hibbari", AUDIOD_SOCKET=control.socket)
    assert (ended.status, ended.err) == (
        ModelNotFound.exit_status,
        "audioctl: there is no model 'hibbari'\n  try: audioctl models\n",
    )


async def test_a_reader_that_goes_away_ends_it_quietly(control: Server, tmp_path: Path) -> None:
    gone = asyncio.Event()
    event = Event(1.0, "drain", "x")
    control.streams("/v1/events", event, event, then=gone)
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "audioctl", "events"),
        env=environment(AUDIOD_SOCKET=control.socket),
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(write)
    with os.fdopen(read, "rb") as reader:
        assert await asyncio.to_thread(reader.readline)
    gone.set()
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")
