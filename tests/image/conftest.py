"""The image, built once for all tests: from a Debian tree in place of a registry's, and packages from a mirror here.

What costs minutes is kept in .cache: the tree, Debian's packages, the wheelhouse.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import PROGRAMS, Engine, EngineFailed
from daemons import TOP
from package_mirror import Mirror

CACHE = TOP / ".cache"
IMAGE = "audiod:cpu"
_SUITE, _PYTHON = "bookworm", "3.11"
_LEFT_OUT = ("doc", "man", "locale")
"""As in Debian's own images."""


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: scripts/setup-system image")
    if os.geteuid() != 0:
        pytest.skip("building and running an image without an engine takes root")
    engine = Engine()
    try:
        engine.__enter__()
    except EngineFailed as error:
        pytest.skip(str(error))
    yield engine
    engine.__exit__()


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """The wheels that the image and the model hibari are made of, for Debian's Python."""
    python = subprocess.run(["/usr/bin/python3", "--version"], capture_output=True, text=True).stdout
    if not python.startswith(f"Python {_PYTHON}."):
        pytest.skip(f"wheels for {_SUITE} are fetched by its Python, {_PYTHON}; /usr/bin/python3 is {python or 'none'}")
    directory = CACHE / "wheelhouse"
    subprocess.run([TOP / "scripts" / "wheelhouse", directory, "daemon", "build", "runtime-hibari"], check=True)
    return directory


@pytest.fixture(scope="session")
def debian() -> str:
    """Where this machine's apt fetches Debian's packages from."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)"], capture_output=True, text=True
    )
    places = [line.split()[0] for line in listed.stdout.splitlines() if line.endswith(f" {_SUITE}")]
    found = [place for place in places if place.rstrip("/").endswith("/debian")]
    if not found:
        pytest.skip(f"apt of this machine has no source for Debian {_SUITE}")
    return found[0]


@pytest.fixture(scope="session")
def mirror(wheelhouse: Path, debian: str) -> Iterator[Mirror]:
    with Mirror(wheelhouse, debian, CACHE / "image" / "packages") as mirror:
        yield mirror


@pytest.fixture(scope="session")
def base(engine: Engine, debian: str) -> str:
    """A Debian tree under the name of Debian's image."""
    tree = CACHE / "image" / f"{_SUITE}.tar"
    if not tree.exists():
        tree.parent.mkdir(parents=True, exist_ok=True)
        partial = tree.with_name(f"partial-{tree.name}")
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{directory}/*" for directory in _LEFT_OUT]
        subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", *excluded, _SUITE, partial, debian], check=True)
        partial.rename(tree)
    name = f"docker.io/library/debian:{_SUITE}-slim"
    engine.podman("import", str(tree), name)
    return name


@pytest.fixture(scope="session")
def image(engine: Engine, base: str, mirror: Mirror) -> str:
    """The image, built by scripts/build-image. Its last line, with size and seconds, is in the test's output."""
    built = engine.run(
        str(TOP / "scripts" / "build-image"),
        *("--cpu", "--builder", "buildah", "--", "--pull-never", "--layers=false"),
        environment={"APT_MIRROR": mirror.url, "PIP_INDEX_URL": f"{mirror.url}/simple"},
    )
    print(built.stdout.splitlines()[-1])
    return IMAGE
