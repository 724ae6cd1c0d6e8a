"""Runtimes and models over the control socket, and without a daemon: the same verbs, the same words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiod import durable
from audiod.config import Config
from audiod.runtimes import build
from audioproto.errors import BadRequest, InstallFailed, InUse, ModelNotInstalled, NotFound
from daemons import TOP, Daemon
from model_hub import COMMIT, Hub, sha256

LOCKS = Config().places.locks_dir


def made(name: str, runtimes_dir: Path) -> Path:
    """Something that passes for a finished runtime, for as long as nobody runs it."""
    directory = build._directory(name, [build.require_lock(name, LOCKS)], runtimes_dir)
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/python").write_text("#!/bin/sh\nexit 1\n")
    (directory / "bin/python").chmod(0o755)
    (directory / durable.STAMP).touch()
    return directory


@pytest.fixture(scope="module")
def own_state(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Path:
    """A state directory with the real hibari, and a kokoro that is not worth much."""
    own = tmp_path_factory.mktemp("own")
    (own / "runtimes").mkdir()
    (own / "models/kokoro-82m").mkdir(parents=True)
    (own / "models/kokoro-82m/model.bin").write_bytes(b"0" * 10000)
    real = build.find("hibari", LOCKS, state_dir / "runtimes")
    assert real is not None
    (own / "runtimes" / real.parents[1].name).symlink_to(real.parents[1])
    made("kokoro", own / "runtimes")
    return own


WEIGHTS = bytes(range(256)) * 100
TERMS = "By-NC (CC-BY-NC-4.0): Not for money. https://example.org/terms"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub({"owner/name": {"model.bin": WEIGHTS}}) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, own_state: Path, hub: Hub) -> Iterator[Daemon]:
    """One whose catalogue has a model of the hub, too."""
    settings = f'[mirrors]\nhub = ["http://127.0.0.1:9", "{hub.url}"]\n'
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), own_state, settings)
    (daemon.directory / "models.d/remote.toml").write_text(
        'id = "remote"\nengine = "hibari"\nruntime = "hibari"\ntask = "speak"\n'
        '[[weights]]\nname = "weights"\ndisk_bytes = "25kB"\n'
        f'[[weights.sources]]\nkind = "hub"\nrepo = "owner/name"\nrevision = "{COMMIT}"\n'
        f'files."model.bin" = "{sha256(WEIGHTS)}"\n'
        "[[licence_notices]]\n"
        'licence = "CC-BY-NC-4.0"\nname = "By-NC"\ntext = "Not for money."\nurl = "https://example.org/terms"\n'
    )
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        daemon.check_log()


def test_the_list_tells_who_needs_a_runtime_and_how_to_get_it(daemon: Daemon) -> None:
    listed = json.loads(daemon.ctl("runtime", "--json").stdout)["runtimes"]
    by_name = {runtime["runtime"]: runtime for runtime in listed}
    assert by_name["hibari"]["installed"]
    assert by_name["hibari"]["models"] == ["hibari", "remote"]
    assert by_name["hibari"]["disk_bytes"] > 10_000_000
    assert not by_name["faster-whisper"]["installed"]
    assert by_name["faster-whisper"]["download_bytes"] > 10_000_000
    table = daemon.ctl("runtime").stdout.splitlines()
    assert table[0].split() == ["RUNTIME", "INSTALLED", "TORCH", "SIZE", "MODELS"]
    assert "hibari" in daemon.ctl("runtime", "--names").stdout.splitlines()


def test_verify_tries_each_and_one_that_is_broken_does_not_stop_the_others(daemon: Daemon) -> None:
    ended = daemon.ctl("runtime", "verify", "kokoro", "hibari")
    assert ended.returncode == 10
    assert "runtime kokoro is installed, but does not work on this host" in ended.stderr
    assert "runtime hibari works, after" in ended.stdout


def test_what_is_loaded_is_not_removed(daemon: Daemon) -> None:
    assert daemon.ctl("load", "hibari").returncode == 0
    refused = daemon.ctl("runtime", "remove", "hibari")
    assert refused.returncode == InUse.exit_status
    assert "runtime hibari is in use: hibari is ready" in refused.stderr
    assert "try: audioctl unload hibari" in refused.stderr
    assert "hibari is in use: hibari is ready" in daemon.ctl("models", "remove", "hibari").stderr
    assert daemon.ctl("unload", "hibari").returncode == 0
    refused = daemon.ctl("models", "remove", "hibari")
    assert refused.returncode == NotFound.exit_status
    assert "its weights come with it: audioctl runtime remove hibari" in refused.stderr


def test_files_are_found_verified_and_removed(daemon: Daemon, own_state: Path) -> None:
    path = daemon.ctl("models", "path", "kokoro-82m")
    assert path.stdout == f"{own_state}/models/kokoro-82m\n"
    refused = daemon.ctl("models", "verify", "kokoro-82m")
    assert refused.returncode == ModelNotInstalled.exit_status
    made = daemon.directory / "state" / "voices" / "made" / "kokoro-82m"
    made.mkdir(parents=True)
    (made / "voice_1.safetensors").write_bytes(b"made of it")
    removed = daemon.ctl("models", "remove", "kokoro-82m")
    assert removed.stdout.splitlines()[-1] == "kokoro-82m is removed"
    assert not (own_state / "models/kokoro-82m").exists()
    assert not made.exists()
    assert daemon.ctl("models", "path", "kokoro-82m").returncode == ModelNotInstalled.exit_status


def test_a_model_is_pulled_from_the_mirror_that_answers_and_its_damage_is_found(
    daemon: Daemon, hub: Hub, own_state: Path
) -> None:
    hub.served["model.bin"] = WEIGHTS[:-1] + b"?"
    spoilt = daemon.ctl("models", "pull", "remote")
    assert spoilt.returncode == InstallFailed.exit_status
    assert "is not the file that is pinned" in spoilt.stderr
    hub.served.clear()
    pulled = daemon.ctl("models", "pull", "remote", "--json")
    assert pulled.returncode == 0, pulled.stderr
    lines = [json.loads(line) for line in pulled.stdout.splitlines()]
    assert lines[-1] == {"model": "remote", "message": "remote is installed", "done": True}
    said = "\n".join(line["message"] for line in lines)
    assert said.index(TERMS) < said.index("downloading model.bin")
    assert f"pull of remote: licence: {TERMS}" in daemon.log.read_text()
    listed = daemon.ctl("models").stdout
    assert "remote is not open source:\n  By-NC: https://example.org/terms" in listed
    _, answer = daemon.get("/v1/models/remote")
    (notice,) = json.loads(answer)["licence_notices"]
    assert (notice["licence"], notice["text"]) == ("CC-BY-NC-4.0", "Not for money.")
    assert "not from http://127.0.0.1:9: " in said
    assert f"files came from {hub.url}" in said
    assert daemon.ctl("models", "verify", "remote").stdout.splitlines()[-1] == "remote is as it should be"
    file = own_state / "models/remote/model.bin"
    file.write_bytes(WEIGHTS[:-1] + b"?")
    damaged = daemon.ctl("models", "verify", "remote")
    assert damaged.returncode == InstallFailed.exit_status
    assert "try: audioctl models remove remote && audioctl models pull remote" in damaged.stderr
    assert daemon.ctl("models", "remove", "remote").returncode == 0


def test_an_unknown_name_is_refused_and_never_becomes_an_option(daemon: Daemon) -> None:
    for name in ("kokorro", "--config=/dev/null", "../runtime-kokoro"):
        refused = daemon.ctl("runtime", "install", "--", name)
        assert refused.returncode == NotFound.exit_status, refused.stderr
        assert "hibari" in refused.stderr
    assert daemon.ctl("runtime", "install").returncode == BadRequest.exit_status


def test_a_removed_runtime_makes_its_models_uninstalled_at_once(daemon: Daemon, own_state: Path) -> None:
    removed = daemon.ctl("runtime", "remove", "kokoro")
    assert removed.returncode == 0, removed.stderr
    assert removed.stdout.splitlines()[-1] == "runtime kokoro is removed"
    assert not list((own_state / "runtimes").glob("kokoro-*"))
    listed = json.loads(daemon.ctl("models", "--json").stdout)["models"]
    assert next(model for model in listed if model["model"] == "kokoro-82m")["missing"].startswith("runtime")


def test_without_a_daemon_the_program_does_the_same(tmp_path: Path, own_state: Path) -> None:
    (tmp_path / "audiod.toml").write_text(f'[storage]\nstate_dir = "{own_state}"\n')
    (tmp_path / "audiod").write_text(f'#!/bin/sh\nexec {sys.executable} -m audiod "$@"\n')
    (tmp_path / "audiod").chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AUDIOD_")},
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{TOP / 'daemon'}:{TOP / 'ctl'}",
        "AUDIOD_CONFIG": str(tmp_path / "audiod.toml"),
        "AUDIOD_SOCKET": str(tmp_path / "none.sock"),
    }

    def ctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = '/audioctl'; from audioctl.__main__ import main; sys.exit(main())",
        ]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=120)

    listed = json.loads(ctl("runtime", "list", "--json").stdout)["runtimes"]
    assert [runtime["runtime"] for runtime in listed if runtime["installed"]] == ["hibari"]
    assert "runtime hibari works" in ctl("runtime", "verify").stdout
    made("kokoro", own_state / "runtimes")
    assert ctl("runtime", "remove", "kokoro").stdout.splitlines()[-1] == "runtime kokoro is removed"
    refused = ctl("models", "verify", "kokoro-82m")
    assert refused.returncode == ModelNotInstalled.exit_status
    assert "try: audioctl models pull kokoro-82m" in refused.stderr
    models = {model["model"]: model for model in json.loads(ctl("models", "list", "--json").stdout)["models"]}
    assert models["hibari"]["installed"]
    assert models["kokoro-82m"]["hint"] == "audioctl models pull kokoro-82m"
    assert "hibari is as it should be" in ctl("models", "verify").stdout
    assert "audiod is not running" in ctl("status").stderr
