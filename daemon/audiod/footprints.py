"""The book of footprints: what was learnt of each model's appetite, kept over restarts in the state directory.

Only keeps; footprints are measured by meters.py and made by residency. What is wrong with the file costs what was
learnt, and never the start.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from pathlib import Path

import msgspec

from audiod import durable, threads
from audiod.models.catalogue import ModelEntry
from audiod.residency.footprint import Footprint

logger = logging.getLogger(__name__)

FILE = "footprints.json"
VERSION = 1

_SAVE_EVERY_S = 30.0
"""What the last requests taught may be lost in a crash; a write for each would keep a disk busy."""

_MOST_BYTES = 2**40
_MOST_S = 7 * 86400.0

_LARGEST_FILE_BYTES = 16 * 2**20
"""Ten thousand models. What is larger is not our file."""

_NO_MATTER = {
    "id", "task", "description", "licence", "licence_notices", "languages", "translates", "logprobs", "scripts",
    "voices", "default_voice", "voice_aliases", "embedded", "device", "parked_bytes", "ready_bytes", "staged_bytes",
    "staging", "memory_limit", "threads", "pinned", "preload", "keep_alive", "park_keep_alive", "max_batch_wait",
    "clones", "emotions", "emotion_words", "input_characters", "changed",
}  # fmt: skip
"""Keys of a model's entry that do not change what its processes hold, or that are told apart by other means."""


class _Record(msgspec.Struct, frozen=True):
    model: str
    device: str
    fingerprint: str
    footprint: Footprint


class _Page(msgspec.Struct, frozen=True):
    version: int
    footprints: list[_Record]


def fingerprint(entry: ModelEntry, runtime: str, cpu_threads: int, staged_bytes: int = 0) -> str:
    """What a model's appetite depends on, as configured: engine, weights, options, how much at once, and its runtime.

    `runtime` is the digest of its lock file, `cpu_threads` what the model gets, the configured default included.
    `staged_bytes` is the device memory that it is staged in, 0 where it is not.
    """
    keys = {name: getattr(entry, name) for name in entry.__struct_fields__ if name not in _NO_MATTER}
    staged = [staged_bytes] if staged_bytes else []
    content = msgspec.json.encode([keys, runtime, cpu_threads, *staged], enc_hook=repr, order="sorted")
    return hashlib.sha256(content).hexdigest()[:16]


class FootprintBook:
    """Footprints by model and device. Made by `read`; not shared between threads."""

    def __init__(self, file: Path, records: list[_Record]) -> None:
        self._file = file
        self._records = {(record.model, record.device): record for record in records}
        self._learnt = asyncio.Event()
        self._saving = asyncio.Lock()
        self._warned = False

    @classmethod
    def read(cls, state_dir: Path) -> FootprintBook:
        """The book of the last run; an empty one where there was none or it cannot be understood. Reads the disk."""
        file = state_dir / FILE
        return cls(file, _read(file))

    def get(self, model: str, device: str, fingerprint: str) -> Footprint | None:
        """What is known of the model as it is configured now. What was learnt of another configuration is dropped."""
        record = self._records.get((model, device))
        if record is None:
            return None
        if record.fingerprint != fingerprint:
            del self._records[model, device]
            self._learnt.set()
            return None
        return record.footprint

    def put(self, model: str, device: str, fingerprint: str, footprint: Footprint) -> None:
        """Keep `footprint` itself, as it will be at the next save."""
        self._records[model, device] = _Record(model, device, fingerprint, footprint)
        self._learnt.set()

    async def keep(self) -> None:
        """Save what is learnt, half a minute later, for ever. Whoever ends it calls `save` a last time."""
        while True:
            await self._learnt.wait()
            await asyncio.sleep(_SAVE_EVERY_S)
            await self.save()

    async def save(self) -> None:
        """Write what has changed. A disk that takes nothing costs a warning, once, and what was learnt stays here."""
        async with self._saving:
            if not self._learnt.is_set():
                return
            self._learnt.clear()
            sane = [record for record in self._records.values() if _is_sane(record.footprint)]
            content = msgspec.json.format(msgspec.json.encode(_Page(VERSION, sane)), indent=1) + b"\n"
            try:
                await threads.apart(lambda: durable.replace(self._file, content), "footprints")
            except OSError as error:
                self._learnt.set()
                if not self._warned:
                    logger.warning("what was learnt of the models cannot be kept in %s: %s", self._file, error.strerror)
                self._warned = True
            else:
                self._warned = False


def _read(file: Path) -> list[_Record]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_FILE_BYTES + 1)
        if len(content) > _LARGEST_FILE_BYTES:
            raise ValueError(f"it is larger than {_LARGEST_FILE_BYTES} bytes")
        version = msgspec.json.decode(content, type=_Version).version
        if version != VERSION:
            raise ValueError(f"it is of version {version}, and this program writes {VERSION}")
        records = msgspec.json.decode(content, type=_Page).footprints
    except FileNotFoundError:  # the first start
        return []
    except (OSError, ValueError, RecursionError) as error:  # all that msgspec raises is among them
        logger.warning("what was learnt of the models is lost, and will be learnt again: %s: %s", file, error)
        return []
    return [record for record in records if _is_sane(record.footprint)]


class _Version(msgspec.Struct, frozen=True):
    version: int


def _is_sane(footprint: Footprint) -> bool:
    sizes = (footprint.ready_bytes, footprint.parked_bytes, *footprint.peaks.values())
    times = (footprint.start_s, footprint.load_s, footprint.service_s, footprint.unit_s)
    return (
        all(0 <= size <= _MOST_BYTES for size in sizes)
        and all(math.isfinite(time) and 0 <= time <= _MOST_S for time in times)
        and all(0 <= key <= 64 for key in footprint.peaks)
    )
