"""What handlers may use, under one typed key of the aiohttp application. Built by audiod/app.py, never here."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from audiod.config import Config
from audiod.media.pool import MediaPool
from audiod.metrics import Metrics
from audiod.models.library import Library
from audiod.residency.manager import ResidencyManager


@dataclass(slots=True)
class Services:
    """`config` and `library` are replaced on reload; the rest lives as long as the daemon."""

    config: Config
    library: Library
    manager: ResidencyManager
    media: MediaPool
    metrics: Metrics
    ready: bool = False
    """Everything that was to be preloaded is, and no drain is on."""


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)

MODEL: web.RequestKey[str] = web.RequestKey("model", str)
"""The model that a request turned out to be for, for its log line and its metrics."""

BEGUN: web.RequestKey[web.StreamResponse] = web.RequestKey("begun", web.StreamResponse)
"""The streamed answer, once its first bytes are on their way and its status can no longer change."""
