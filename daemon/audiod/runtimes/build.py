"""Builds an engine's virtual environment from its lock file, says where a finished one is, tries it and removes it.

Never imports an engine's library: it only runs the runtime's own Python. One runtime is built, broken and replaced
without touching another.

    <runtimes_dir>/kokoro-3f2a90c41b7e/      named by lock files and Python, so a changed lock is another directory
    <runtimes_dir>/kokoro-3f2a90c41b7e/.complete     written last; without it the directory does not count
    <runtimes_dir>/.kokoro.lock              held by whoever builds or removes
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from audiod import durable
from audiod.runtimes import lockfile, pip, torch_builds
from audiod.runtimes.lockfile import LockFile
from audiod.runtimes.pip import Progress
from audiod.runtimes.torch_builds import Choice, Host
from audiod.units import ByteSize
from audioproto.errors import InstallFailed, InUse, NotFound

_VERIFY_TIMEOUT_S = 300.0
"""Importing the largest libraries took 28 s from a cold disk without bytecode; ten times that is a hang."""


class Settings(msgspec.Struct, frozen=True):
    """What the configuration says of building. `indexes` are package indexes, tried in order before pip's own setting;
    `torch_indexes` hold an index for each build of torch, below its tag."""

    indexes: tuple[str, ...] = ()
    torch_indexes: tuple[str, ...] = ()
    torch: str = "auto"
    """A build's tag, or `auto`."""
    device: str = "auto"
    """Where models are loaded that do not say."""


class Built(NamedTuple):
    """A runtime's directory. `torch` is the tag of its build of torch, empty where it has none."""

    directory: Path
    torch: str

    @property
    def python(self) -> Path:
        return self.directory / "bin/python"

    @property
    def whole(self) -> bool:
        """Whether it is finished, and the system's Python that it links to was not taken away by an upgrade."""
        return (self.directory / durable.STAMP).exists() and self.python.exists()

    def finished_at(self) -> int:
        """Unix time in nanoseconds; 0 where somebody is just removing it."""
        try:
            return (self.directory / durable.STAMP).stat().st_mtime_ns
        except FileNotFoundError:
            return 0


class Tried(NamedTuple):
    """What trying a runtime has shown. `devices` are those that torch computed on, none where it has no torch."""

    took_s: float
    torch: str
    devices: tuple[str, ...]


def built(runtime: str, locks_dir: Path, runtimes_dir: Path) -> Built | None:
    """The finished runtime that belongs to the present lock file, or None. Costs a few stats.

    Of several with different builds of torch, of which one may be in use still, it is the one finished last.
    """
    lock = lockfile.read(locks_dir, f"runtime-{runtime}")
    if lock is None:
        return None
    locked = ((tag, _locks(lock, tag)) for tag in lock.torch or [""])
    there_are = [Built(_directory(runtime, locks, runtimes_dir), tag) for tag, locks in locked if locks]
    return max((found for found in there_are if found.whole), key=Built.finished_at, default=None)


def find(runtime: str, locks_dir: Path, runtimes_dir: Path) -> Path | None:
    """Its Python alone."""
    found = built(runtime, locks_dir, runtimes_dir)
    return found.python if found else None


def require_lock(runtime: str, locks_dir: Path) -> LockFile:
    """Its lock file. Raises NotFound with the names of those that there are."""
    known = names(locks_dir)
    lock = lockfile.read(locks_dir, f"runtime-{runtime}") if runtime in known else None
    if lock is None:
        raise NotFound(f"there is no runtime {runtime!r}, only: {', '.join(known)}", hint="audioctl runtime list")
    return lock


def names(locks_dir: Path) -> list[str]:
    """Every runtime that can be built, alphabetically."""
    return sorted(file.stem.removeprefix("runtime-") for file in locks_dir.glob("runtime-*.txt"))


def fitting(lock: LockFile, settings: Settings) -> Choice | None:
    """The build of torch that this host should have, None where the runtime needs none. Asks the driver.

    Raises InstallFailed, DeviceUnreadable.
    """
    if not lock.torch:
        return None
    locks = {tag: lockfile.read(lock.path.parent, f"torch-{tag}") for tag in lock.torch}
    offered = {tag: found.only for tag, found in locks.items() if found}
    # A driver that does not work must not stop an operator who has decided.
    host = torch_builds.look(settings.device) if settings.torch == "auto" else Host()
    return torch_builds.choose(host, offered, settings.torch)


def build(
    runtime: str,
    locks_dir: Path,
    runtimes_dir: Path,
    progress: Progress,
    settings: Settings = Settings(),  # noqa: B008 - frozen
    *,
    choose_again: bool = False,
) -> Path:
    """Build the runtime unless it is there; returns its Python.

    One that is there with another build of torch than fits is good enough, unless `choose_again`. Removes what an
    interrupted build left, and, once the new one works, older builds that nobody uses. Waits while another thread or
    process builds the same one. Raises InstallFailed, NotFound, DeviceUnreadable.
    """
    lock = require_lock(runtime, locks_dir)
    say = _prefixed(progress, f"runtime {runtime}: ")
    with durable.claim(runtimes_dir / f".{runtime}.lock", lambda: say("waiting for another install")) as held:
        found = built(runtime, locks_dir, runtimes_dir)
        if found and not (choose_again and lock.torch):
            return found.python
        choice = fitting(lock, settings)
        if found and choice and found.torch == choice.tag:
            return found.python
        started = time.monotonic()
        tag = choice.tag if choice else ""
        if choice:
            say(f"torch for {tag}: {'; '.join(choice.reasons)}")
        locks = _locks(lock, tag)
        assert locks is not None, "only what is locked is chosen"
        directory = _directory(runtime, locks, runtimes_dir)
        if Built(directory, tag).whole:  # left when another became the right one, because it was in use
            durable.write_stamp(directory, lock.digest.encode())
            return Built(directory, tag).python
        shutil.rmtree(directory, ignore_errors=True)
        durable.require_space(runtimes_dir, sum(each.disk_bytes for each in locks), f"runtime {runtime}")
        if lock.licence:
            say(f"licence: {lock.licence}")
        say(f"{sum(each.pinned for each in locks)} packages pinned")
        try:
            _make_environment(directory, locks, tag, settings, say, held)
            tried = verify(runtime, Built(directory, tag), lock)
            durable.write_stamp(directory, lock.digest.encode())
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        _remove_older(runtime, directory)
        say(f"ready after {time.monotonic() - started:.0f} s{describe(tried)}")
        return Built(directory, tag).python


def describe(tried: Tried) -> str:
    """What torch did when it was tried, to be put behind a sentence; empty where there is none."""
    return f": torch {tried.torch} computes on {', '.join(tried.devices)}" if tried.torch else ""


def remove(runtime: str, locks_dir: Path, runtimes_dir: Path, progress: Progress) -> int:
    """Remove every build of the runtime; returns the bytes that came free.

    Raises InUse where a process runs from it, and NotFound where there is nothing to remove.
    """
    require_lock(runtime, locks_dir)
    say = _prefixed(progress, f"runtime {runtime}: ")
    with durable.claim(runtimes_dir / f".{runtime}.lock", lambda: say("waiting for another install")):
        directories = list(_builds(runtime, runtimes_dir))
        if not directories:
            raise NotFound(f"runtime {runtime} is not installed", hint="audioctl runtime list")
        for directory in directories:
            if pids := users(directory):
                said = f"runtime {runtime} is in use by process {', '.join(map(str, pids))}"
                raise InUse(said, hint="audioctl unload MODEL, for each model that runs from it")
        freed_bytes = sum(disk_bytes(directory) for directory in directories)
        for directory in directories:
            # What is left of it by an interruption does not count.
            (directory / durable.STAMP).unlink(missing_ok=True)
            shutil.rmtree(directory)
        say(f"removed, {ByteSize(freed_bytes)} are free again")
        return freed_bytes


def users(directory: Path) -> list[int]:
    """Ids of the processes whose program lies below `directory`, as far as we may see."""
    below = f"{directory}/".encode()
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:  # it has ended, or is not for us to look at
                continue
            if command.startswith(below):
                found.append(int(process.name))
    return sorted(found)


def disk_bytes(directory: Path) -> int:
    """What the files below `directory` take. Ten thousand stats."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def outdated(runtime: str, locks_dir: Path, runtimes_dir: Path) -> Path | None:
    """A finished build for another lock file or another Python, where there is one."""
    present = built(runtime, locks_dir, runtimes_dir)
    older = (path for path in _builds(runtime, runtimes_dir) if (path / durable.STAMP).exists())
    return next((path for path in older if present is None or path != present.directory), None)


def _locks(lock: LockFile, tag: str) -> list[LockFile] | None:
    """All that such a build is installed from, torch first; None where that build of torch is not locked."""
    if not tag:
        return [lock]
    torch = lockfile.read(lock.path.parent, f"torch-{tag}")
    return [torch, lock] if torch else None


def _directory(runtime: str, locks: Sequence[LockFile], runtimes_dir: Path) -> Path:
    # The cache tag is `cpython-311` and the like: binary packages of one Python do not load in the next.
    name = " ".join((*(lock.digest for lock in locks), sys.implementation.cache_tag))
    return runtimes_dir / f"{runtime}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _builds(runtime: str, runtimes_dir: Path) -> Iterator[Path]:
    name = re.compile(re.escape(runtime) + r"-[0-9a-f]{12}")
    if runtimes_dir.is_dir():
        yield from (path for path in runtimes_dir.iterdir() if name.fullmatch(path.name))


def _make_environment(
    directory: Path, locks: Sequence[LockFile], tag: str, settings: Settings, say: Progress, held: int
) -> None:
    # Built where it stays: console scripts hold absolute paths, so a finished environment must not be renamed.
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=pip.environment(),
        encoding="utf-8",
        errors="replace",
    )
    if made.returncode:
        what = f"no virtual environment in {directory}"
        raise pip.failure(what, made.returncode, made.stdout.splitlines(), hint="apt install python3-venv")
    for lock in locks:
        # Bytecode is compiled by pip: the runtime may be read-only to those who run it.
        arguments = ["--python", str(directory / "bin/python"), "install", "--no-deps", "--require-hashes"]
        arguments += ["--requirement", str(lock.path)]
        if (build_lock := lock.path.parent / "build.txt").exists():
            arguments += ["--build-constraint", str(build_lock)]
        indexes: list[str] = [*settings.indexes, ""]
        if lock.local:  # no public index has it; where pip finds links, an operator may
            indexes = ["", *(f"{index.rstrip('/')}/{tag}" for index in settings.torch_indexes)]
        pip.run_from(
            indexes, arguments, f"to install {lock.path.name}", keep_open=held, scratch=directory, progress=say
        )


_RESULT = "audiod: "
"""Begins the line of what was found: a library may print when it is imported, and when it is left."""

_TRIAL = """
import json, sys
devices = []
if sys.argv[1]:
    import torch
    wanted = [int(number) for number in sys.argv[2:]]
    if wanted and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} sees no GPU, but the driver shows {len(wanted)}")
    for device in ["cpu", *(f"cuda:{number}" for number in wanted)]:
        try:
            rows = torch.arange(12, dtype=torch.float32, device=device).reshape(3, 4)
            product = (rows @ rows.T).sum().item()
        except torch.cuda.OutOfMemoryError:
            devices.append(f"{device} (full, so not tried)")
            continue
        if product != 1134:
            sys.exit(f"torch {torch.__version__} computes wrongly on {device}: {product}, not 1134")
        devices.append(device)
print("\\naudiod: " + json.dumps([torch.__version__ if sys.argv[1] else "", devices]))
"""
"""Run by the runtime's own Python, after its imports; gets the build's tag, and the numbers of the GPUs to run on."""


def verify(runtime: str, found: Built, lock: LockFile) -> Tried:
    """Import its libraries, and let torch multiply on the CPU and on each GPU that its build is for.

    A missing system library or CPU feature, or a GPU that it has no code for, shows here and not at the first request.
    Raises InstallFailed.
    """
    started = time.monotonic()
    imports = "\n".join(f"import {module}" for module in lock.imports)
    numbers = torch_builds.numbers(found.torch)
    try:
        tried = subprocess.run(
            [str(found.python), "-I", "-c", imports + _TRIAL, found.torch, *map(str, numbers)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            # NVML counts GPUs by bus, and CUDA by speed unless it is told.
            env=pip.environment() | {"HF_HUB_OFFLINE": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            encoding="utf-8",
            errors="replace",
            timeout=_VERIFY_TIMEOUT_S,
        )
    except OSError as error:
        raise InstallFailed(f"runtime {runtime} does not run: {error}", hint=_anew(runtime)) from error
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(
            f"runtime {runtime}: its libraries were still importing after {error.timeout:.0f} s", hint=_anew(runtime)
        ) from error
    results = [line for line in tried.stdout.splitlines() if line.startswith(_RESULT)]
    if tried.returncode or not results:
        raise pip.failure(
            f"runtime {runtime} is installed, but does not work on this host",
            tried.returncode,
            (tried.stdout + tried.stderr).splitlines()[-8:],
            hint=f"install what the last line names, then run the same again; or anew: {_anew(runtime)}",
        )
    torch, devices = json.loads(results[-1].removeprefix(_RESULT))
    return Tried(time.monotonic() - started, torch, tuple(devices))


def _anew(runtime: str) -> str:
    return f"audioctl runtime remove {runtime} && audioctl runtime install {runtime}"


def _remove_older(runtime: str, current: Path) -> None:
    for other in _builds(runtime, current.parent):
        # What is in use goes when the next one is built.
        if other != current and not users(other):
            shutil.rmtree(other, ignore_errors=True)


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda line: progress(prefix + line)
