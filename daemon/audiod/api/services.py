"""What handlers may use, under one typed key of the aiohttp application. Built by audiod/app.py, never here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from audiod.api.auth import Keys
from audiod.api.realtime.secrets import ClientSecrets
from audiod.config import Config
from audiod.media.audio_memory import AudioMemory
from audiod.media.pool import MediaPool
from audiod.metrics import Metrics
from audiod.models.library import Library
from audiod.residency.manager import ResidencyManager
from audiod.translate.chat import Translator
from audiod.voices import VoiceStore

if TYPE_CHECKING:
    from audiod.api.sockets import Socket


class Readiness(msgspec.Struct, frozen=True):
    """`status` is `ready`, `starting`, `draining`, `stopping` or `failed`; `reason` says why it is not `ready`."""

    status: str
    reason: str = ""


@dataclass(slots=True)
class Services:
    """`config`, `library`, `keys` and `translator` are replaced on reload; the rest lives as long as the daemon."""

    config: Config
    library: Library
    keys: Keys
    translator: Translator
    manager: ResidencyManager
    media: MediaPool
    audio_memory: AudioMemory
    voices: VoiceStore
    metrics: Metrics
    started: bool = False
    """The preload is through, well or not."""
    preload_failures: dict[str, str] = field(default_factory=dict)
    """Models that were to be loaded at start and could not, with the reason."""
    stopping: bool = False
    """No connection is accepted any more; what has been accepted is finished."""
    running: int = 0
    """HTTP requests being answered, WebSockets among them."""
    temporary_keys: ClientSecrets = field(default_factory=ClientSecrets)
    """Keys that were given out to open Realtime sessions with."""
    realtime_sessions: int = 0
    """Open Realtime sessions."""
    sockets: set[Socket] = field(default_factory=set)
    """Open WebSockets."""

    @property
    def longest_input(self) -> int:
        """Characters of the longest text that any model takes."""
        own = (entry.input_characters for entry in self.library.entries.values())
        return max(self.config.server.input_characters, *own)

    def readiness(self) -> Readiness:
        """Whether new work is welcome. A preload that failed is made good by loading the model later."""
        scheduler = self.manager.scheduler
        if self.stopping:
            return Readiness("stopping", "what was accepted is being finished")
        if scheduler.draining:
            return Readiness("draining", "no new work is admitted; audioctl undrain ends that")
        if not self.started:
            preloads = [entry.id for entry in self.library.entries.values() if entry.preload]
            awaited = ", ".join(model for model in preloads if not self._has_loaded(model))
            return Readiness("starting", f"preloading {awaited}" if awaited else "just started")
        for model, reason in self.preload_failures.items():
            if model in scheduler.models and not self._has_loaded(model):
                return Readiness("failed", f"preload of {model} failed: {reason}")
        return Readiness("ready")

    def _has_loaded(self, model: str) -> bool:
        """Whether the model has been ready since the daemon was started."""
        state = self.manager.scheduler.models.get(model)
        return state is not None and state.loads > 0


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)

MODEL: web.RequestKey[str] = web.RequestKey("model", str)
"""The model that a request turned out to be for, for its log line and its metrics."""

KEY: web.RequestKey[str] = web.RequestKey("key", str)
"""The name of the API key that a request came with, for its log line."""

STARTED: web.RequestKey[float] = web.RequestKey("started", float)
"""When the request came, by time.monotonic()."""

STAGE: web.RequestKey[str] = web.RequestKey("stage", str)
"""What a request is at while no model is: of audiod/metrics.py's STAGES, or empty where residency counts it."""

BEGUN: web.RequestKey[web.StreamResponse] = web.RequestKey("begun", web.StreamResponse)
"""The streamed answer, once its first bytes are on their way and its status can no longer change."""
