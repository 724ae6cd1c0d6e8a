"""Tests that need an NVIDIA GPU skip where there is none."""

from __future__ import annotations

import pytest

from audiod import gpu


@pytest.fixture(scope="session")
def card() -> gpu.Gpu:
    """The first GPU of this host."""
    found = gpu.gpus()
    if not found:
        pytest.skip("no NVIDIA GPU here")
    return found[0]
