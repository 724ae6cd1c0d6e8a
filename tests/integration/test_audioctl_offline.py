"""audioctl as a process where no daemon answers: what it says then, how it ends, and what it takes to start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from audioctl import commands
from audioctl_peer import environment
from audioproto.errors import DaemonUnreachable, ErrorBody, NotFound, PermissionDenied
from daemons import TOP


def audioctl(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "audioctl", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_no_socket_means_that_the_daemon_does_not_run(tmp_path: Path) -> None:
    ended = audioctl("status", AUDIOD_SOCKET=str(tmp_path / "control.sock"))
    assert ended.returncode == DaemonUnreachable.exit_status
    assert ended.stdout == ""
    assert ended.stderr.startswith(
        f"audioctl: audiod is not running: there is no socket {tmp_path}/control.sock\n  try: "
    )
    assert "systemctl status audiod" in ended.stderr
    assert "scripts/run" in ended.stderr


def test_a_socket_that_nobody_listens_on_means_the_same(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    ended = audioctl("--socket", str(path), "status")
    assert ended.returncode == DaemonUnreachable.exit_status
    assert f"nothing listens on {path}" in ended.stderr


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may open everything")
def test_a_socket_that_may_not_be_opened_names_the_group_to_join(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    # Root without this capability is refused like anyone else.
    drop = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"] if os.geteuid() == 0 else []
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen()
        path.chmod(0)
        ended = subprocess.run(
            [*drop, sys.executable, "-m", "audioctl", "--socket", str(path), "status"],
            env=environment(),
            capture_output=True,
            text=True,
        )
    assert ended.returncode == PermissionDenied.exit_status
    assert ended.stderr == (
        f'audioctl: you may not open {path}\n  try: sudo usermod -aG audiod "$USER", then log in again\n'
    )


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    ended = audioctl("--socket", f"{tmp_path}/{'x' * 120}", "status")
    assert ended.returncode == 2
    assert "too long" in ended.stderr


@pytest.mark.parametrize("argv", [("--json", "status"), ("status", "--json"), ("load", "x", "--json")])
def test_an_error_is_json_where_json_was_asked_for(argv: tuple[str, ...], tmp_path: Path) -> None:
    ended = audioctl(*argv, AUDIOD_SOCKET=str(tmp_path / "none"))
    body = msgspec.json.decode(ended.stderr, type=dict[str, msgspec.Raw])
    assert msgspec.json.decode(body["error"], type=ErrorBody).code == "daemon_unreachable"
    assert ended.returncode == DaemonUnreachable.exit_status


def test_wrong_usage_is_json_too() -> None:
    ended = audioctl("--json", "lod")
    assert msgspec.json.decode(ended.stderr)["error"]["hint"] == "audioctl load"
    assert ended.returncode == 2


@pytest.mark.parametrize("verb", commands.verbs())
def test_every_verb_has_help_without_a_daemon(verb: str, tmp_path: Path) -> None:
    ended = audioctl(verb, "--help", AUDIOD_SOCKET=str(tmp_path / "none"))
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert ended.stdout.startswith(f"usage: audioctl {verb} ")
    assert "\nexamples:\n  audioctl" in ended.stdout or verb == "completion"


def test_help_and_version_need_no_daemon(tmp_path: Path) -> None:
    for flag, words in (("--help", "commands:"), ("--version", "protocol")):
        ended = audioctl(flag, AUDIOD_SOCKET=str(tmp_path / "none"))
        assert (ended.returncode, ended.stderr) == (0, "")
        assert words in ended.stdout


def test_version_shows_its_own_where_the_daemon_is_away(tmp_path: Path) -> None:
    ended = audioctl("version", AUDIOD_SOCKET=str(tmp_path / "none"))
    assert ended.stdout.startswith("audioctl ")
    assert ended.returncode == DaemonUnreachable.exit_status


def test_status_imports_nothing_that_is_slow(tmp_path: Path) -> None:
    """Its promise is a tenth of a second: http.client alone costs 40 ms, aiohttp 200 ms."""
    program = (
        "import sys; from audioctl.__main__ import main; sys.argv = ['audioctl', 'status']; main(); "
        "print(*sys.modules, sep='\\n')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(AUDIOD_SOCKET=str(tmp_path / "none")),
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {module.partition(".")[0] for module in ended.stdout.split()}
    assert "audioctl" in imported
    assert not imported & {"http", "email", "urllib", "asyncio", "aiohttp", "subprocess", "pathlib", "shutil", "ssl"}
    assert not imported & {"audiod", "audioworker"}
    verbs = {module for module in ended.stdout.split() if module.startswith("audioctl.commands.")}
    assert verbs == {"audioctl.commands.status"}


def test_config_check_is_done_by_audiod_which_also_sets_the_exit_status(tmp_path: Path) -> None:
    program = tmp_path / "audiod"
    program.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = audioctl("config", "check", "my file.toml", "--json", PATH=path)
    assert (ended.returncode, ended.stdout) == (7, "check-config my file.toml --json\n")
    assert audioctl("config", "check", PATH=path).stdout == "check-config\n"


def test_config_check_says_where_audiod_is_missing(tmp_path: Path) -> None:
    ended = audioctl("config", "check", PATH=str(tmp_path))
    assert ended.returncode == NotFound.exit_status
    assert "there is no program audiod" in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_packaged_script(shell: str) -> None:
    packaged = {"bash": "audioctl.bash", "zsh": "_audioctl", "fish": "audioctl.fish"}[shell]
    assert audioctl("completion", shell).stdout == (TOP / "packaging" / "completion" / packaged).read_text()


def test_a_format_that_no_name_tells_is_asked_for(tmp_path: Path) -> None:
    ended = audioctl("say", "hello", "-o", str(tmp_path / "hello.txt"))
    assert ended.returncode == 2
    assert "--format mp3|opus|aac|flac|wav|pcm" in ended.stderr


def test_two_recordings_that_would_become_one_file_are_refused_before_any_work(tmp_path: Path) -> None:
    ended = audioctl("transcribe", "a/talk.wav", "b/talk.mp3", "--output-dir", str(tmp_path))
    assert ended.returncode == 2
    assert f"a/talk.wav and b/talk.mp3 would both become {tmp_path}/talk.txt" in ended.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    ended = audioctl("say", "hello", "-o", "-", "--url", url)
    assert ended.returncode == 2
    assert "is no base URL" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_api_that_nobody_serves_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = audioctl("say", "hello", "-o", str(tmp_path / "x.mp3"), AUDIOD_URL=url)
    assert ended.returncode == DaemonUnreachable.exit_status
    assert f"cannot reach {url}: Connection refused" in ended.stderr
    assert list(tmp_path.iterdir()) == []
