"""Builds an engine's virtual environment from its lock file, and says where a finished one is.

Never imports an engine's library: it only runs the runtime's own Python. One runtime is built, broken and replaced
without touching another.

    <runtimes_dir>/kokoro-3f2a90c41b7e/      named by lock file and Python, so a changed lock is another directory
    <runtimes_dir>/kokoro-3f2a90c41b7e/.complete     written last; without it the directory does not count
    <runtimes_dir>/.kokoro.lock              held by whoever builds
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from audiod import durable
from audiod.runtimes import lockfile, pip
from audiod.runtimes.lockfile import LockFile
from audiod.runtimes.pip import Progress
from audioproto.errors import InstallFailed

_VERIFY_TIMEOUT_S = 300.0
"""Importing the largest libraries took 28 s from a cold disk without bytecode; ten times that is a hang."""


def find(runtime: str, locks_dir: Path, runtimes_dir: Path) -> Path | None:
    """The Python of the finished runtime that belongs to the present lock file, or None. Costs three stats."""
    lock = lockfile.read(locks_dir, f"runtime-{runtime}")
    if lock is None:
        return None
    directory = _directory(runtime, lock, runtimes_dir)
    python = directory / "bin/python"
    # The second look follows the link to the system's Python, which an upgrade may have taken away.
    return python if (directory / durable.STAMP).exists() and python.exists() else None


def build(runtime: str, locks_dir: Path, runtimes_dir: Path, progress: Progress) -> Path:
    """Build the runtime unless it is there; returns its Python.

    Removes what an interrupted build left, and, once the new one works, builds of older lock files. Waits while
    another thread or process builds the same one. Raises InstallFailed.
    """
    lock = lockfile.read(locks_dir, f"runtime-{runtime}")
    if lock is None:
        raise InstallFailed(f"there is no runtime {runtime!r}: no {locks_dir}/runtime-{runtime}.txt")
    say = _prefixed(progress, f"runtime {runtime}: ")
    directory = _directory(runtime, lock, runtimes_dir)
    with durable.claim(runtimes_dir / f".{runtime}.lock", lambda: say("waiting for another install")) as held:
        if python := find(runtime, locks_dir, runtimes_dir):
            return python
        started = time.monotonic()
        shutil.rmtree(directory, ignore_errors=True)
        durable.require_space(runtimes_dir, lock.disk_bytes, f"runtime {runtime}")
        say(f"{lock.pinned} packages pinned")
        try:
            _make_environment(directory, lock, say, held)
            verify(runtime, directory / "bin/python", lock)
            durable.write_stamp(directory, lock.digest.encode())
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        _remove_older(runtime, directory)
        say(f"ready after {time.monotonic() - started:.0f} s")
        return directory / "bin/python"


def _directory(runtime: str, lock: LockFile, runtimes_dir: Path) -> Path:
    # The cache tag is `cpython-311` and the like: binary packages of one Python do not load in the next.
    name = hashlib.sha256(f"{lock.digest} {sys.implementation.cache_tag}".encode()).hexdigest()[:12]
    return runtimes_dir / f"{runtime}-{name}"


def _make_environment(directory: Path, lock: LockFile, say: Progress, held: int) -> None:
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
    # Bytecode is compiled by pip: the runtime may be read-only to those who run it.
    arguments = ["--python", str(directory / "bin/python"), "install", "--no-deps", "--require-hashes"]
    arguments += ["--requirement", str(lock.path)]
    if (build_lock := lock.path.parent / "build.txt").exists():
        arguments += ["--build-constraint", str(build_lock)]
    pip.run(arguments, doing=f"to install {lock.path.name}", keep_open=held, scratch=directory, progress=say)


def verify(runtime: str, python: Path, lock: LockFile) -> float:
    """Import its libraries: a missing system library or CPU feature shows here and not at the first request.

    Returns the seconds it took. Raises InstallFailed.
    """
    started = time.monotonic()
    code = "\n".join(f"import {module}" for module in lock.imports)
    try:
        tried = subprocess.run(
            [str(python), "-I", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=pip.environment() | {"HF_HUB_OFFLINE": "1"},
            encoding="utf-8",
            errors="replace",
            timeout=_VERIFY_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise InstallFailed(
            f"runtime {runtime}: its libraries were still importing after {error.timeout:.0f} s"
        ) from error
    if tried.returncode:
        raise pip.failure(
            f"runtime {runtime} is installed, but does not work on this host",
            tried.returncode,
            tried.stdout.splitlines()[-8:],
            hint="install what the last line names, then run the same again",
        )
    return time.monotonic() - started


def _remove_older(runtime: str, current: Path) -> None:
    name = re.compile(re.escape(runtime) + r"-[0-9a-f]{12}")
    for other in current.parent.iterdir():
        if other != current and name.fullmatch(other.name):
            shutil.rmtree(other, ignore_errors=True)


def _prefixed(progress: Progress, prefix: str) -> Progress:
    return lambda line: progress(prefix + line)
