"""scripts/install for real: into a directory, served from there, upgraded while it runs, and taken out again."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from daemons import AUDIO, TOP, Daemon, say, transcribe

PREFIX = "usr/local"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "daemon", "ctl", "etc", "packaging", "systemd", "scripts")


class Checkout:
    """A copy of this checkout, so that nobody edits it between two installations."""

    def __init__(self, top: Path) -> None:
        self.top = top
        for source in SOURCES:
            if (TOP / source).is_dir():
                shutil.copytree(TOP / source, top / source, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(TOP / source, top / source)

    def run(
        self, destdir: Path, *options: str, systemd: bool = False, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.top / "scripts" / "install"), "--destdir", str(destdir), *options]
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
        return subprocess.run(
            [*command, *([] if systemd else ["--no-systemd"])],
            capture_output=True,
            text=True,
            env=kept | settings,
            timeout=280,
        )

    def install(self, destdir: Path, *options: str) -> str:
        """What it says, having succeeded."""
        ended = self.run(destdir, *options)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"))


def tree(destdir: Path) -> dict[str, str]:
    """Every path with its content's digest, the insides of environments left out."""
    found = {}
    for path in sorted(destdir.rglob("*")):
        name = str(path.relative_to(destdir))
        if re.search(r"/venv-[^/]+/", name):
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
    return found


def copy(destdir: Path, to: Path) -> Path:
    """The same installation once more, in a moment: what is changed there must be replaced, not written into."""
    subprocess.run(["cp", "-al", str(destdir), str(to)], check=True)
    return to


def environments(destdir: Path) -> set[str]:
    return {path.name for path in (destdir / PREFIX / "lib" / "audiod").glob("venv-*")}


@pytest.fixture(scope="module")
def destdir(tmp_path_factory: pytest.TempPathFactory, checkout: Checkout) -> Path:
    """Where it was installed by the first call; tests that change it do so in a copy."""
    directory = tmp_path_factory.mktemp("install") / "d"
    said = checkout.install(directory)
    assert "installed venv-0.1.0-" in said
    return directory


@pytest.fixture(scope="module")
def script() -> Any:
    """scripts/install as a module, for what can be asked without installing."""
    loader = SourceFileLoader("scripts_install", str(TOP / "scripts" / "install"))
    spec = importlib.util.spec_from_loader("scripts_install", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Installed(Daemon):
    """A daemon of the installation below `destdir`, with the models that the checkout has."""

    def __init__(self, directory: Path, state_dir: Path, destdir: Path) -> None:
        super().__init__(directory, state_dir)
        self.python = destdir / PREFIX / "lib" / "audiod" / "venv" / "bin" / "python"

    def environment(self) -> dict[str, str]:
        kept = super().environment()
        del kept["PYTHONPATH"]
        return kept

    def command(self) -> list[str]:
        serve = [str(self.python), "-m", "audiod", "serve", "--config", str(self.config), "--port", "0"]
        return [*serve, "--socket", str(self.socket), "--state-dir", str(self.directory / "state")]

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), "-m", "audioctl", "--socket", str(self.socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment(), timeout=180)


def serving(directory: Path, state_dir: Path, destdir: Path) -> Iterator[Installed]:
    daemon = Installed(directory, state_dir, destdir)
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
        daemon.check_log()


@pytest.fixture
def daemon(tmp_path: Path, state_dir: Path, destdir: Path) -> Iterator[Installed]:
    yield from serving(tmp_path, state_dir, destdir)


# --- what is there ------------------------------------------------------------------------------------------------


def test_the_installed_daemon_speaks_and_transcribes_from_where_it_was_installed(daemon: Installed) -> None:
    program = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    assert program.startswith(str(daemon.python.parent))
    assert say(daemon)[0] == 200
    status, text = transcribe(daemon, (AUDIO / "jfk.wav").read_bytes())
    assert status == 200
    assert b"country" in text
    examined = daemon.ctl("doctor")
    assert examined.returncode == 0, examined.stdout
    assert "ok    media:" in examined.stdout
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert str(TOP) not in maps, "something is used from the checkout"


def test_commands_configuration_manuals_and_completions_are_in_their_places(destdir: Path) -> None:
    there = tree(destdir)
    for name in ("audiod", "audioctl"):
        assert there[f"{PREFIX}/bin/{name}"] == f"-> ../lib/audiod/venv/bin/{name}"
        assert os.access(destdir / PREFIX / "bin" / name, os.X_OK)
    for name in (
        *("etc/audiod/audiod.toml", "etc/audiod/models.d/hibari.toml", f"{PREFIX}/share/man/man1/audioctl.1"),
        *(f"{PREFIX}/share/man/man8/audiod.8", f"{PREFIX}/share/bash-completion/completions/audioctl"),
    ):
        assert name in there
    assert stat.S_IMODE((destdir / "etc/audiod/api-keys").stat().st_mode) == 0o600
    assert not any("systemd" in name for name in there)


def test_no_installed_text_names_the_directory_it_was_staged_in_or_the_checkout(
    destdir: Path, checkout: Checkout
) -> None:
    """What it names is where it will be, once a package has put it there."""
    for place in (destdir, checkout.top):
        named = subprocess.run(["grep", "-rIlF", str(place), str(destdir)], capture_output=True, text=True)
        assert named.stdout == ""
    script = (destdir / PREFIX / "lib/audiod/venv/bin/audioctl").read_text().splitlines()[0]
    assert re.fullmatch(rf"#!/{PREFIX}/lib/audiod/venv-0\.1\.0-[0-9a-f]{{12}}/bin/python", script)


def test_it_has_its_bytecode_and_can_be_read_by_everyone(destdir: Path) -> None:
    """The service's account can neither write it nor may it be kept out by the umask of whoever installed it."""
    (module,) = (destdir / PREFIX / "lib/audiod/venv/lib").glob("python*/site-packages/audiod/app.py")
    assert list((module.parent / "__pycache__").glob("app.*.pyc"))
    for path in (
        module,
        module.parent,
        destdir / PREFIX / "lib/audiod/manifest.json",
        destdir / "etc/audiod/audiod.toml",
    ):
        assert path.stat().st_mode & 0o044 == 0o044


def test_the_umask_of_whoever_installs_does_not_matter(destdir: Path, checkout: Checkout, tmp_path: Path) -> None:
    there = copy(destdir, tmp_path / "d")
    (there / "etc/audiod/audiod.toml").unlink()
    before = os.umask(0o077)
    try:
        checkout.install(there)
    finally:
        os.umask(before)
    assert stat.S_IMODE((there / "etc/audiod/audiod.toml").stat().st_mode) == 0o644


# --- again --------------------------------------------------------------------------------------------------------


def test_a_second_time_nothing_is_done_and_a_dry_run_would_do_nothing(destdir: Path, checkout: Checkout) -> None:
    before = tree(destdir)
    assert checkout.install(destdir).startswith("nothing to do: venv-0.1.0-")
    assert checkout.install(destdir, "--dry-run") == ""
    assert tree(destdir) == before


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, checkout: Checkout) -> None:
    said = checkout.install(tmp_path / "d", "--dry-run")
    assert "would build /usr/local/lib/audiod/venv-0.1.0-" in said
    assert "would write /etc/audiod/audiod.toml" in said
    assert "would link /usr/local/bin/audiod to ../lib/audiod/venv/bin/audiod" in said
    assert not (tmp_path / "d").exists()


def test_what_was_damaged_is_put_right(destdir: Path, checkout: Checkout, tmp_path: Path) -> None:
    there = copy(destdir, tmp_path / "d")
    (there / PREFIX / "bin/audioctl").unlink()
    (there / PREFIX / "share/man/man8/audiod.8").unlink()
    checkout.install(there)
    assert tree(there) == tree(destdir)


def test_configuration_that_was_changed_stays_and_what_was_not_follows_the_program(
    destdir: Path, checkout: Checkout, tmp_path: Path
) -> None:
    there = copy(destdir, tmp_path / "d")
    etc, manifest = there / "etc/audiod", there / PREFIX / "lib/audiod/manifest.json"
    known = json.loads(manifest.read_text())

    def put(path: Path, text: str) -> None:
        path.unlink()  # a hard link to the original
        path.write_text(text)

    put(etc / "audiod.toml", "[server]\nport = 9000\n")
    put(etc / "api-keys", "me secret\n")
    (etc / "models.d/whisper-tiny-en.toml").unlink()
    # As an earlier version had left it, and another that the operator has changed since then.
    put(etc / "models.d/hibari.toml", "old\n")
    known["config"]["/etc/audiod/models.d/hibari.toml"] = hashlib.sha256(b"old\n").hexdigest()
    put(etc / "models.d/whisper-base.toml", "mine\n")
    known["config"]["/etc/audiod/models.d/whisper-base.toml"] = hashlib.sha256(b"old\n").hexdigest()
    put(manifest, json.dumps(known))
    said = checkout.install(there)
    assert (etc / "audiod.toml").read_text() == "[server]\nport = 9000\n"
    assert (etc / "api-keys").read_text() == "me secret\n"
    assert not (etc / "models.d/whisper-tiny-en.toml").exists()
    assert (etc / "models.d/hibari.toml").read_bytes() == (checkout.top / "etc/models.d/hibari.toml").read_bytes()
    assert (etc / "models.d/whisper-base.toml").read_text() == "mine\n"
    assert (etc / "models.d/whisper-base.toml.new").read_bytes() == (
        TOP / "etc/models.d/whisper-base.toml"
    ).read_bytes()
    assert "kept /etc/audiod/models.d/whisper-base.toml" in said
    checkout.install(there, "--uninstall")
    left = {name for name in tree(there) if not (there / name).is_dir()}
    models = {f"etc/audiod/models.d/{file.name}" for file in (TOP / "etc/models.d").glob("*.toml")}
    models.remove("etc/audiod/models.d/whisper-tiny-en.toml")
    assert left == {"etc/audiod/audiod.toml", "etc/audiod/api-keys"} | models


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The next version, which has a page less."""
    checkout = Checkout(tmp_path_factory.mktemp("newer"))
    version = checkout.top / "daemon/audioproto/__init__.py"
    version.write_text(version.read_text().replace('"0.1.0"', '"0.2.0"'))
    (checkout.top / "packaging/man/audiod.toml.5").unlink()
    return checkout


def test_an_upgrade_that_fails_changes_nothing(destdir: Path, newer: Checkout, tmp_path: Path) -> None:
    there = copy(destdir, tmp_path / "d")
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0"}
    ended = newer.run(there, systemd=False, PIP_INDEX_URL="http://127.0.0.1:9/simple", **nowhere)
    assert ended.returncode == 1
    assert "ended with status" in ended.stderr
    assert "PIP_INDEX_URL" in ended.stderr
    assert tree(there) == tree(destdir)
    assert environments(there) == environments(destdir)


def test_an_upgrade_beneath_a_running_daemon_and_back_again(
    destdir: Path, checkout: Checkout, newer: Checkout, tmp_path: Path, state_dir: Path
) -> None:
    there = copy(destdir, tmp_path / "d")
    (tmp_path / "run").mkdir()
    running = serving(tmp_path / "run", state_dir, there)
    daemon = next(running)
    (old,) = environments(there)
    said = newer.install(there)
    assert "sudo systemctl restart" not in said, "there are no units here"
    (new,) = environments(there) - {old}
    assert new.startswith("venv-0.2.0-")
    assert (there / PREFIX / "lib/audiod/venv").readlink() == Path(new)
    assert not (there / PREFIX / "share/man/man5/audiod.toml.5").exists(), "the new version has no such page"
    # The old daemon goes on: models are started and speech is encoded by programs of the environment that it began in.
    assert json.loads(daemon.get("/health")[1])["versions"]["audiod"] == "0.1.0"
    assert say(daemon, response_format="mp3")[0] == 200
    assert daemon.ctl("version").stdout.splitlines()[0].startswith("audioctl 0.2.0")
    assert daemon.stop() == 0
    daemon.start()
    assert json.loads(daemon.get("/health")[1])["versions"]["audiod"] == "0.2.0"
    assert next(running, None) is None
    assert newer.install(there).startswith("nothing to do")
    assert environments(there) == {old, new}, "the one before stays"
    assert "installed venv-0.1.0" in checkout.install(there), "so that going back takes a moment"
    assert (there / PREFIX / "lib/audiod/venv").readlink() == Path(old)


# --- and out ------------------------------------------------------------------------------------------------------


def test_uninstall_leaves_configuration_and_state_and_what_others_put_there(
    destdir: Path, checkout: Checkout, tmp_path: Path
) -> None:
    there = copy(destdir, tmp_path / "d")
    state = there / "var/lib/audiod/models"
    state.mkdir(parents=True)
    (there / PREFIX / "bin/other").write_text("somebody else's")
    said = checkout.install(there, "--uninstall", "--dry-run")
    assert "would remove /usr/local/bin/audiod" in said
    assert environments(there)
    checkout.install(there, "--uninstall")
    left = {name for name in tree(there) if not (there / name).is_dir()}
    assert all(name.startswith("etc/audiod/") or name == f"{PREFIX}/bin/other" for name in left), left
    assert {"etc/audiod/audiod.toml", "etc/audiod/api-keys", f"{PREFIX}/bin/other"} <= left
    assert state.is_dir()
    assert not (there / PREFIX / "share").exists()
    again = checkout.run(there, "--uninstall")
    assert (again.returncode, again.stdout) == (1, "")
    assert "nothing is installed below /usr/local" in again.stderr


def test_purge_leaves_nothing(destdir: Path, checkout: Checkout, tmp_path: Path) -> None:
    there = copy(destdir, tmp_path / "d")
    (there / "var/lib/audiod/models").mkdir(parents=True)
    (there / "var/cache/audiod").mkdir(parents=True)
    (there / "etc/audiod/mine").write_text("x")
    checkout.install(there, "--uninstall", "--purge")
    assert {name for name in tree(there) if not (there / name).is_dir()} == set()
    assert not (there / "etc").exists()
    assert not (there / "var/lib/audiod").exists()


# --- systemd, and what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "units", "account"),
    [
        ("/usr/local", "/etc/systemd/system", "/etc/sysusers.d/audiod.conf"),
        ("/opt/audiod", "/etc/systemd/system", "/etc/sysusers.d/audiod.conf"),
        ("/usr", "/usr/lib/systemd/system", "/usr/lib/sysusers.d/audiod.conf"),
    ],
)
def test_units_run_what_is_below_the_prefix_and_are_where_systemd_looks(
    script: Any, monkeypatch: pytest.MonkeyPatch, prefix: str, units: str, account: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["install", "--prefix", prefix])
    found: dict[Path, bytes] = script.Installation(script.read_options()).units()
    service = found[Path(units, "audiod.service")].decode()
    assert f"ExecStart={prefix}/bin/audiod serve --config /etc/audiod/audiod.toml" in service
    assert f"ExecReload={prefix}/bin/audioctl reload" in service
    assert Path(account) in found
    names = {path.name for path in found}
    assert names >= {"audiod.socket", "audiod-control.socket", "audiod-pull@.service", "audiod-runtime@.service"}
    for path, content in found.items():
        if prefix != "/usr":
            assert b"/usr/bin/audio" not in content, path


def test_a_place_that_the_service_could_not_see_is_refused(tmp_path: Path, checkout: Checkout) -> None:
    ended = checkout.run(tmp_path / "d", "--prefix", "/home/me/.local", systemd=True)
    assert ended.returncode == 1
    assert "home directory, which services do not see" in ended.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "options",
    [("--prefix", "relative"), ("--prefix", "/with space"), ("--etc", "/a%b"), ("--purge",), ("--prefix", "/")],
)
def test_wrong_usage_is_refused(tmp_path: Path, checkout: Checkout, options: tuple[str, ...]) -> None:
    assert checkout.run(tmp_path / "d", *options).returncode == 2


def test_a_file_that_is_not_ours_is_not_replaced(destdir: Path, checkout: Checkout, tmp_path: Path) -> None:
    there = copy(destdir, tmp_path / "d")
    program = there / PREFIX / "bin/audioctl"
    program.unlink()
    program.write_text("somebody else's")
    ended = checkout.run(there)
    assert ended.returncode == 1
    assert "/usr/local/bin/audioctl is not ours" in ended.stderr
    assert program.read_text() == "somebody else's"
