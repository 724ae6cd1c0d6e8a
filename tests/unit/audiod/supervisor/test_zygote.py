"""What a zygote is told of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiod.supervisor.zygote import Launch
from audioproto.types import EngineSpec


@pytest.mark.parametrize(
    ("visible", "said"),
    [("GPU-2", "GPU-2"), ("", ""), (None, "1,0")],
    ids=["its own GPU", "none, for a model on the CPU", "whatever the daemon sees"],
)
def test_a_zygote_sees_the_gpus_that_it_is_meant_to_see(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, said: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    spec = EngineSpec("e", "m", "/models/m")
    launch = Launch(Path("python"), Path("code"), Path("cache"), spec, visible=visible)
    assert launch.environment()["CUDA_VISIBLE_DEVICES"] == said
