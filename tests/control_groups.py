"""Control groups with a memory limit for tests, of whichever version this host has."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_NUMBERS = itertools.count(1)
_ROOTS = (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"))


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A group whose processes may hold `limit_bytes` together. They must have ended when it is left."""
    for root, file in _ROOTS:
        group = Path(root, f"audiod-test-{os.getpid()}-{next(_NUMBERS)}")
        try:
            group.mkdir()
            (group / file).write_text(str(limit_bytes))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    pytest.skip("no control group with a memory limit can be made here")


def limit(group: Path, limit_bytes: int) -> None:
    """Another limit for the group."""
    for _, file in _ROOTS:
        if (group / file).exists():
            (group / file).write_text(str(limit_bytes))
