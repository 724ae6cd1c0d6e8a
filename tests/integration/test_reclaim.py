"""Memory that is not given back is measured, on processes that are there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from audiod.supervisor import memory

HELD_BYTES = 60_000_000

HOLDER = f"""
import os, sys
held = bytearray(os.urandom(1)) * {HELD_BYTES}
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own that holds 60 MB."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


async def test_a_group_that_does_not_end_is_told_by_the_bytes_it_holds(holder: subprocess.Popen[str]) -> None:
    assert HELD_BYTES < await memory.group_gone(holder.pid, timeout_s=0.0) < 2 * HELD_BYTES


async def test_a_group_that_has_ended_holds_nothing(holder: subprocess.Popen[str]) -> None:
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    assert await memory.group_gone(holder.pid, timeout_s=10.0) == 0
