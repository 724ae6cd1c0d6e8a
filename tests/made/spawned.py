"""spawned: the scripted engine, of which nothing survives a fork."""

from __future__ import annotations

from typing import ClassVar

from audioproto.types import Hold
from audioworker.engines import scripted  # type: ignore[attr-defined]


class Engine(scripted.Engine):  # type: ignore[misc]
    hold: ClassVar[Hold] = Hold.NOTHING
