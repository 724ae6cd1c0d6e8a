"""Prometheus's programs, for the tests that need them; they skip where there are none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from scraping import program

Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Run promtool with these arguments, on this standard input."""
    binary = program("promtool")
    if binary is None or program("prometheus") is None:
        pytest.skip("no Prometheus here: scripts/setup-system prometheus")

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(binary), *arguments], input=text, capture_output=True, text=True, timeout=60)

    return run
