"""How a directory or a file on disk is either whole or absent: one builder at a time, room first, a stamp last.

Knows nothing of pip, models or runtimes. Blocks on the disk, so it is never called on the event loop.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from audiod.units import ByteSize
from audioproto.errors import InstallFailed

STAMP = ".complete"
"""Name of the file that is written last into a finished directory. Without it the directory does not count."""


@contextmanager
def claim(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold the lock file `path`, among threads and processes, for the length of the `with` block.

    Calls `on_wait` once if somebody else holds it. Yields a descriptor to hand on to child processes (`pass_fds`): an
    flock(2) lasts until its last descriptor closes, so the orphans of a killed builder still keep the next one out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def require_space(directory: Path, needed_bytes: int, what: str) -> None:
    """Raise InstallFailed where the file system of `directory` has less than `needed_bytes` free for this user."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise InstallFailed(
            f"{what} needs {ByteSize(needed_bytes)} in {directory}, where {ByteSize(free_bytes)} are free",
            hint=f"df -h {directory}",
        )


def write_stamp(directory: Path, content: bytes) -> None:
    """Declare `directory` finished: everything below it is on the disk before the stamp is."""
    # One sync(2) and not an fsync for each file: a runtime has ten thousand of them.
    os.sync()
    stamp = directory / STAMP
    with stamp.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def replace(file: Path, content: bytes) -> None:
    """Give `file` another content: after a crash or a power cut it has the old one or the new. Raises OSError."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        with fresh.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(file)
        sync_directory(file.parent)
    except OSError:
        with contextlib.suppress(OSError):  # a half-written one must not keep a full disk full
            fresh.unlink()
        raise


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
