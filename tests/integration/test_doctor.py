"""`audioctl doctor` on a real daemon that is well, and on real faults: each is named, with a command that mends it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiod.models import catalogue
from audiod.models.catalogue import ModelEntry
from audiod.models.install import Places
from audiod.runtimes import build
from control_groups import memory_group
from daemons import TOP, Daemon, running
from file_systems import file_system

ROOT = os.geteuid() == 0


class Report:
    """What doctor said, by check; a check may have several findings."""

    def __init__(self, ended: subprocess.CompletedProcess[str]) -> None:
        assert ended.stderr == ""
        self.status = ended.returncode
        self.findings: list[dict[str, str]] = json.loads(ended.stdout)["findings"]
        self.counts: dict[str, int] = {name: json.loads(ended.stdout)[name] for name in ("ok", "warn", "fail")}

    def of(self, check: str) -> dict[str, str]:
        """The worst finding of one check."""
        found = [finding for finding in self.findings if finding["check"] == check]
        assert found, f"no {check} among {[finding['check'] for finding in self.findings]}"
        return max(found, key=lambda finding: ("ok", "warn", "fail").index(finding["verdict"]))

    def verdict(self, check: str) -> str:
        return self.of(check)["verdict"]

    def bad(self) -> set[str]:
        return {finding["check"] for finding in self.findings if finding["verdict"] == "fail"}


def doctor(
    daemon: Daemon, *options: str, prefix: tuple[str, ...] = (), **settings: str
) -> subprocess.CompletedProcess[str]:
    """audioctl doctor against that daemon, with `audiod` on PATH as where both are installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [*prefix, sys.executable, "-m", "audioctl", "--socket", str(daemon.socket), "doctor", *options],
        capture_output=True,
        text=True,
        env=daemon.environment() | {"PATH": path} | settings,
        timeout=180,
    )


def report(daemon: Daemon, *options: str, **settings: str) -> Report:
    return Report(doctor(daemon, "--json", *options, prefix=(), **settings))


@pytest.fixture(scope="module")
def embedded_state(
    entries: dict[str, ModelEntry], places: Places, state_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A state directory with what belongs to embedded models. Each report tries every runtime; torch takes seconds."""
    directory = tmp_path_factory.mktemp("embedded")
    (directory / "models").symlink_to(state_dir / "models")
    (directory / "runtimes").mkdir()
    for runtime in {entry.runtime for entry in entries.values() if entry.embedded}:
        built = build.built(runtime, places.locks_dir, places.runtimes_dir)
        assert built is not None, f"the runtime {runtime} is not built: run scripts/test"
        (directory / "runtimes" / built.directory.name).symlink_to(built.directory)
    return directory


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, embedded_state: Path) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("daemon"), embedded_state) as started:
        yield started


@pytest.fixture
def partial_state(tmp_path: Path, embedded_state: Path) -> Path:
    """A state directory with the real runtimes and no model."""
    directory = tmp_path / "installed"
    (directory / "models").mkdir(parents=True)
    (directory / "runtimes").symlink_to(embedded_state / "runtimes")
    return directory


# --- a daemon that is well ----------------------------------------------------------------------------------------


def test_a_daemon_that_is_well_fails_no_check_and_every_part_was_looked_at(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir) as daemon:
        found = report(daemon)
    assert found.status == 0, found.findings
    assert found.bad() == set()
    looked_at = {finding["check"] for finding in found.findings}
    assert looked_at >= {f"model {name}" for name in catalogue.load(TOP / "etc" / "models.d")}
    assert looked_at >= {"daemon", "socket", "you", "service", "http", "config", "user", "state", "disk", "memory"}
    assert looked_at >= {
        "voices",
        "limits",
        "gpu",
        "media",
        "runtime faster-whisper",
        "runtime hibari",
        "runtime kokoro",
    }
    assert not any(check.startswith("mirror") for check in looked_at), "the network was not asked for"
    assert sum(found.counts.values()) == len(found.findings)
    assert "imported in" in found.of("runtime kokoro")["found"]
    assert "audioctl models pull whisper-tiny-en" in found.of("model whisper-tiny-en")["found"]


def test_for_people_each_finding_is_a_line_and_a_total_ends_it(daemon: Daemon) -> None:
    ended = doctor(daemon)
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert lines[0].startswith(f"ok    daemon: audiod 0.1.0 (pid {daemon.process.pid}) answers on ")
    assert lines[-1].endswith(" 0 fail")
    if ROOT:
        user = lines.index("warn  user: the daemon runs as root, and so do all engines")
        assert lines[user + 1].startswith("        try: ")


def test_two_at_once_both_get_everything(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "audioctl", "--socket", str(daemon.socket), "doctor", "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=daemon.environment()) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=180)[0])["findings"] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [finding["check"] for finding in answers[0]] == [finding["check"] for finding in answers[1]]


def test_a_caller_who_leaves_costs_the_daemon_nothing(daemon: Daemon) -> None:
    command = [sys.executable, "-m", "audioctl", "--socket", str(daemon.socket), "doctor"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=daemon.environment()
    ) as asked:
        assert asked.stdout is not None
        while not asked.stdout.readline().startswith(b"ok    config"):
            assert asked.poll() is None
        asked.send_signal(signal.SIGINT)
    assert report(daemon).status == 0


# --- faults, with the daemon up -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "said"), [(0o666, "everyone on this host"), (0o600, "its group may not open it")])
def test_a_control_socket_with_the_wrong_mode_fails(daemon: Daemon, mode: int, said: str) -> None:
    daemon.socket.chmod(mode)
    try:
        found = report(daemon)
    finally:
        daemon.socket.chmod(0o660)
    assert (found.status, found.bad()) == (1, {"socket"})
    assert said in found.of("socket")["found"]
    assert found.of("socket")["fix"] == f"sudo chmod 660 {daemon.socket}"


def test_a_configuration_that_was_broken_since_it_was_read_fails_and_is_not_in_force(daemon: Daemon) -> None:
    good = daemon.config.read_text()
    try:
        daemon.config.write_text(good + "\n[residency]\nkeep_alife = 3\n")
        broken = report(daemon)
        daemon.config.write_text(good + "\n[residency]\nkeep_alive = '7m'\n")
        changed = report(daemon)
    finally:
        daemon.config.write_text(good)
    assert (broken.status, broken.bad()) == (1, {"config"})
    assert "keep_alife" in broken.of("config")["found"]
    assert broken.of("config")["fix"] == f"audiod check-config {daemon.config}"
    assert (changed.verdict("config"), changed.of("config")["fix"]) == ("warn", "audioctl reload")


def test_a_broken_model_file_and_one_that_everyone_may_write_fail(daemon: Daemon) -> None:
    extra = daemon.directory / "models.d" / "zz.toml"
    try:
        extra.write_text('id = "zz"\nengin = "hibari"\n')
        assert "engin" in report(daemon).of("config")["found"]
        extra.unlink()
        daemon.config.chmod(0o666)
        assert report(daemon).of("config")["fix"] == f"sudo chmod o-w {daemon.config}"
    finally:
        extra.unlink(missing_ok=True)
        daemon.config.chmod(0o644)


def test_models_that_are_missing_or_damaged_are_named_with_the_command_that_installs_them(
    tmp_path: Path, embedded_state: Path, partial_state: Path
) -> None:
    damaged = partial_state / "models" / "whisper-base"
    shutil.copytree(embedded_state / "models" / "whisper-base", damaged, copy_function=os.link)
    (damaged / "model.bin").unlink()
    with running(tmp_path, partial_state) as daemon:
        found = report(daemon)
    assert (found.status, found.bad()) == (1, {"model whisper-base"})
    assert "was installed, but now lacks" in found.of("model whisper-base")["found"]
    assert found.of("model whisper-base")["fix"] == "audioctl models pull whisper-base"
    # Embedded ones are meant to be there; others are only on offer.
    assert found.verdict("model kokoro-82m") == "warn"
    assert found.verdict("model whisper-tiny-en") == "ok"


def test_runtimes_that_do_not_work_or_are_out_of_date_fail(tmp_path: Path, embedded_state: Path) -> None:
    """One whose library does not import, and one built for another lock file."""
    installed = tmp_path / "installed"
    installed.mkdir()
    (installed / "models").symlink_to(embedded_state / "models")
    locks = TOP / "packaging" / "locks"
    real = build.find("hibari", locks, embedded_state / "runtimes")
    assert real is not None
    broken = installed / "runtimes" / real.parents[1].name
    (broken / "bin").mkdir(parents=True)
    (broken / "bin" / "python").symlink_to(sys.executable)  # which has no such library
    (broken / ".complete").touch()
    older = installed / "runtimes" / "kokoro-0123456789ab"
    for outdated in (older, installed / "runtimes" / "qwen-asr-0123456789ab"):
        outdated.mkdir()
        (outdated / ".complete").touch()
    with running(tmp_path, installed) as daemon:
        found = report(daemon)
    assert found.status == 1
    assert found.bad() >= {"runtime hibari", "runtime kokoro"}
    assert "No module named 'hibari'" in found.of("runtime hibari")["found"]
    assert found.of("runtime kokoro")["fix"] == "audioctl runtime install kokoro"
    assert str(older) in found.of("runtime kokoro")["found"]
    assert found.verdict("runtime faster-whisper") == "warn", "not built, though an embedded model needs it"
    needless = found.of("runtime qwen-asr")
    assert (needless["verdict"], needless["fix"]) == ("warn", "audioctl runtime remove qwen-asr"), "no model needs it"


def test_a_state_directory_that_fills_up_or_becomes_read_only_fails_and_the_daemon_goes_on(
    tmp_path: Path, embedded_state: Path
) -> None:
    state = tmp_path / "state"
    with file_system(state, "64m"), running(tmp_path, embedded_state) as daemon:
        scarce = report(daemon)
        assert (scarce.status, scarce.verdict("disk"), scarce.verdict("state")) == (0, "warn", "ok")
        with (state / "filling").open("wb", buffering=0) as filling, contextlib.suppress(OSError):
            while True:
                filling.write(bytes(1 << 20))
        full = report(daemon)
        assert (full.status, full.bad()) == (1, {"disk", "state"})
        assert "No space left on device" in full.of("state")["found"]
        assert full.of("disk")["fix"].startswith("sudo du ")
        assert daemon.get("/health/live")[0] == 200
        (state / "filling").unlink()
        subprocess.run(["mount", "-o", "remount,ro", state], check=True)
        fixed = report(daemon)
        subprocess.run(["mount", "-o", "remount,rw", state], check=True)
        assert (fixed.status, fixed.bad()) == (1, {"state"})
        assert "Read-only file system" in fixed.of("state")["found"]
        assert report(daemon).status == 0


def test_models_on_a_read_only_file_system_can_be_used_but_not_installed(tmp_path: Path, partial_state: Path) -> None:
    with file_system(partial_state / "models", "1g"):
        subprocess.run(["mount", "-o", "remount,ro", partial_state / "models"], check=True)
        with running(tmp_path, partial_state) as daemon:
            found = report(daemon)
    assert (found.status, found.verdict("state")) == (0, "warn")
    assert "nothing can be installed there" in found.of("state")["found"]
    assert found.of("state")["fix"] == f"findmnt --target {partial_state / 'models'}"


def test_budgets_are_held_against_the_memory_there_is_and_the_models(tmp_path: Path, embedded_state: Path) -> None:
    with running(tmp_path, embedded_state, '[residency]\nbudget = "900TiB"\n') as daemon:
        greedy = report(daemon)
        assert greedy.verdict("memory") in ("warn", "fail")
        assert "residency.budget" in greedy.of("memory")["fix"]
        daemon.config.write_text(daemon.config.read_text().replace("900TiB", "100MiB"))
        assert daemon.ctl("reload").returncode == 0
        mean = report(daemon)
    assert mean.bad() == {"model whisper-base", "model kokoro-82m"}
    assert (
        "can never be loaded: it needs 300 MiB of a residency.budget of 100 MiB"
        in mean.of("model whisper-base")["found"]
    )
    assert "audioctl reload" in mean.of("model whisper-base")["fix"]


def test_a_memory_limit_that_is_smaller_than_the_budgets_fails(tmp_path: Path, embedded_state: Path) -> None:
    """As in a container: half of the host's memory is more than the container has."""
    with memory_group(2 << 30) as group, running(tmp_path, embedded_state) as daemon:
        (group / "cgroup.procs").write_text(str(daemon.process.pid))
        found = report(daemon)
    assert found.bad() == {"memory"}
    assert "the control group may have 2 GiB in all" in found.of("memory")["found"]


def test_few_open_files_are_a_warning(tmp_path: Path, embedded_state: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with running(tmp_path, embedded_state) as daemon:
            found = report(daemon)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.verdict("limits") == "warn"
    assert "1024" in found.of("limits")["found"]


def test_a_model_that_failed_and_an_alias_without_a_model_are_named(tmp_path: Path, embedded_state: Path) -> None:
    hasty = '[residency]\nstart_timeout = "1ms"\n'
    with running(
        tmp_path, embedded_state, hasty + '[aliases]\nwhisper-1 = ["whisper-base", "whisper-large"]\n'
    ) as daemon:
        assert daemon.ctl("load", "hibari").returncode != 0
        found = report(daemon)
    assert found.bad() == {"model hibari"}
    assert found.of("model hibari")["fix"] == "audioctl load hibari"
    assert "whisper-large" in found.of("config")["found"]


def test_a_daemon_that_drains_is_a_warning(daemon: Daemon) -> None:
    daemon.ctl("drain", "--wait")
    found = report(daemon)
    daemon.ctl("undrain")
    assert (found.status, found.verdict("http"), found.of("http")["fix"]) == (0, "warn", "audioctl undrain")


# --- faults, with no daemon that answers --------------------------------------------------------------------------


@pytest.fixture
def down(tmp_path: Path, embedded_state: Path) -> Daemon:
    """One that was never started, with all that it would need."""
    settings = f'state_dir = "{tmp_path / "state"}"\n[control]\nsocket = "{tmp_path / "control.sock"}"\n'
    return Daemon(tmp_path, embedded_state, settings)


def test_with_the_daemon_down_that_comes_first_and_the_rest_is_looked_at_without_it(down: Daemon) -> None:
    (down.directory / "state").mkdir()
    found = report(down, AUDIOD_CONFIG=str(down.config))
    assert found.status == 1
    assert found.findings[0]["check"] == "daemon"
    assert "audiod is not running" in found.findings[0]["found"]
    assert {finding["check"] for finding in found.findings} >= {"daemon", "config", "you", "service", "state", "disk"}
    assert found.bad() == {"daemon"}
    assert str(down.config) in found.of("config")["found"]
    assert str(down.directory / "state") in found.of("state")["found"]


def test_with_the_daemon_down_a_broken_configuration_is_told_by_audiod_itself(down: Daemon) -> None:
    down.config.write_text(down.config.read_text() + "\n[residency]\nkeep_alife = 3\n")
    found = report(down, AUDIOD_CONFIG=str(down.config))
    assert found.bad() == {"daemon", "config"}
    assert "keep_alife" in found.of("config")["found"]


def test_with_the_daemon_down_a_state_directory_open_to_all_and_a_full_disk_are_seen(down: Daemon) -> None:
    state = down.directory / "state"
    with file_system(state, "4m"):
        state.chmod(0o777)
        found = report(down, AUDIOD_CONFIG=str(down.config))
    assert found.bad() == {"daemon", "state", "disk"}
    assert found.of("state")["fix"] == f"sudo chmod o-w {state}"


def test_looking_at_the_wrong_socket_is_noticed(down: Daemon, tmp_path: Path) -> None:
    down.socket = tmp_path / "other.sock"
    found = report(down, AUDIOD_CONFIG=str(down.config))
    assert found.of("socket")["fix"] == f"audioctl --socket {tmp_path / 'control.sock'} doctor"


def test_a_daemon_that_hangs_is_told_from_one_that_is_down(tmp_path: Path, embedded_state: Path) -> None:
    with running(tmp_path, embedded_state) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            found = report(daemon)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
    assert (found.status, found.verdict("daemon")) == (1, "fail")
    assert "did not answer within 5 s" in found.of("daemon")["found"]


@pytest.mark.skipif(not ROOT or shutil.which("setpriv") is None, reason="becomes somebody else, which only root may")
def test_somebody_who_may_not_open_the_socket_is_told_so(daemon: Daemon) -> None:
    # Whoever may read everything, but is nobody: the interpreter may lie where only root can read.
    capability = "+dac_read_search"
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reading = (f"--inh-caps={capability}", f"--ambient-caps={capability}")
    found = Report(doctor(daemon, "--json", prefix=(*nobody, *reading)))
    assert found.status == 1
    assert "you may not open" in found.of("daemon")["found"]
    assert "usermod" in found.of("daemon")["fix"]
    assert "nobody" in found.of("you")["found"]
    assert found.verdict("socket") == "ok"


# --- the network --------------------------------------------------------------------------------------------------


def test_mirrors_that_do_not_answer_are_found_with_their_own_clients(tmp_path: Path, embedded_state: Path) -> None:
    """Port 9 of this host, where nobody listens: pip's failure is one, the others have substitutes."""

    class Cut(Daemon):
        def environment(self) -> dict[str, str]:
            return super().environment() | {
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_FIND_LINKS": "",
                "PIP_INDEX_URL": "http://user:secret@127.0.0.1:9/simple",
                "npm_config_registry": "http://user:secret@127.0.0.1:9/",
            }

    daemon = Cut(
        tmp_path,
        embedded_state,
        '[mirrors]\nhub = "http://127.0.0.1:9"\ntorch_index = "http://127.0.0.1:9/whl"\nmodelscope = []\n',
    )
    daemon.start()
    try:
        ended = doctor(daemon, "--json", "--network")
    finally:
        daemon.stop()
    daemon.check_log()
    found = Report(ended)
    assert (found.status, found.bad()) == (1, {"mirror pip"})
    assert "pip config" in found.of("mirror pip")["fix"]
    assert found.verdict("mirror hub") == "warn"
    assert found.verdict("mirror npm") == "warn"
    assert found.verdict("mirror torch") == "warn"
    assert "secret" not in ended.stdout
