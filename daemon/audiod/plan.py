"""What a configuration comes to: the models, where each is loaded, what the scheduler is told of them, how they start.

Made whole from the configuration, the catalogue, the devices and what was learnt; a reload makes a new one. Starts
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from audiod import config as configuration
from audiod import devices
from audiod.api.auth import Keys
from audiod.config import Config
from audiod.devices import CPU, Device
from audiod.footprints import FootprintBook, fingerprint
from audiod.models import catalogue, install
from audiod.models.catalogue import ModelEntry, Staging
from audiod.models.library import Library
from audiod.residency.events import Limits, Profile
from audiod.residency.footprint import Footprint
from audiod.runtimes import build, lockfile
from audiod.supervisor import memory
from audiod.supervisor.cgroup import Groups
from audiod.supervisor.zygote import Launch
from audiod.translate.chat import Translator
from audioproto.types import EngineSpec, VoiceKind


@dataclass(frozen=True, slots=True)
class Plan:
    """`devices`, `staged_bytes` and `fingerprints` are by model; these name what its footprint was learnt under."""

    config: Config
    library: Library
    keys: Keys
    translator: Translator
    devices: dict[str, Device]
    staged_bytes: dict[str, int]
    fingerprints: dict[str, str]
    profiles: list[Profile]
    limits: Limits
    audio_memory_bytes: int

    def launch(self, model: str, code: Path, groups: Groups | None) -> Launch:
        """How to start the model's zygote; `code` is where our worker's packages are found.

        Reads the disk. Raises ModelNotInstalled.
        """
        entry = self.library.entry(model)
        where = self.config.places
        python = build.find(entry.runtime, where.locks_dir, where.runtimes_dir)
        if missing := install.missing(entry, where):
            raise install.not_installed(entry, missing)
        assert python is not None
        device = self.devices[model]
        spec = EngineSpec(
            engine=entry.engine,
            model=entry.id,
            model_dir=str(install.model_dir(entry, where)),
            device=device.seen_as,
            threads=_threads(entry, self.config),
            concurrency=entry.concurrency,
            max_batch=entry.max_batch,
            max_batch_wait_s=float(entry.max_batch_wait),
            options=entry.options,
            memory_bytes=self.staged_bytes[model],
            voices_dir=str(self.config.state_dir / "voices" / "made" / entry.directory_name) if entry.clones else "",
        )
        group = groups.model(entry.directory_name, int(entry.memory_limit)) if groups else None
        return Launch(python, code, self.config.cache_dir, spec, group, device.visible)


def make(config: Config, keys: Keys, stored: Callable[[str], VoiceKind | None], book: FootprintBook) -> Plan:
    """`keys` are accepted beside those of the configured file; `stored` says of what kind a stored voice is.

    Reads the disk and asks the driver. Raises ConfigInvalid, and DeviceNotFound for a device that is not there.
    """
    where = config.places
    entries = catalogue.load(config.catalogue_dir)
    library = Library(entries, config.aliases, lambda entry: install.missing(entry, where), stored)
    if config.server.api_keys_file:
        keys = Keys.read(Path(config.server.api_keys_file)) + keys
    translator = Translator.read(config.translate)
    named = {entry.device or config.residency.device for entry in library.entries.values()}
    found: dict[str, Device] = {name: devices.resolve(name) for name in named}
    placed = {entry.id: found[entry.device or config.residency.device] for entry in library.entries.values()}
    bounds = limits(config, {device.name for device in found.values()})
    on = {model: device.name for model, device in placed.items()}
    staged = staging(entries.values(), on, bounds.devices)
    fingerprints = {model: _fingerprint(entry, config, staged[model]) for model, entry in entries.items()}
    profiles = [
        _profile(entry, config, on[model], staged[model], book.get(model, on[model], fingerprints[model]))
        for model, entry in entries.items()
    ]
    audio_memory_bytes = _audio_memory_bytes(config)
    return Plan(config, library, keys, translator, placed, staged, fingerprints, profiles, bounds, audio_memory_bytes)


def staging(entries: Iterable[ModelEntry], on: Mapping[str, str], budgets: Mapping[str, int]) -> dict[str, int]:
    """Device memory that each model is staged in, by model; 0 where it is not staged.

    `on` is the device of each model, `budgets` are the devices'. Unless its entry decides, one that has room as a
    whole, beside what is pinned there, is not staged; pinned ones choose first, in the order of `entries`. Else it is
    if it can be, and then it gets its least and not all that there is: so it is loaded sooner, and others may stay. By
    what entries say, and not by what was learnt, lest it change by itself.
    """
    ordered = sorted(entries, key=lambda entry: not entry.pinned)
    taken = dict.fromkeys(budgets, 0)  # by pinned models: of those that come later, their least
    for entry in ordered:
        if entry.pinned:
            taken[on[entry.id]] += _least_bytes(entry)
    found = {}
    for entry in ordered:
        device, least_bytes = on[entry.id], _least_bytes(entry)
        beside_bytes = taken[device] - (least_bytes if entry.pinned else 0)
        whole = entry.staging is Staging.OFF or (
            entry.staging is Staging.AUTO and entry.ready_bytes <= budgets[device] - beside_bytes
        )
        found[entry.id] = 0 if whole else int(entry.staged_bytes)
        if entry.pinned:
            taken[device] = beside_bytes + (found[entry.id] or int(entry.ready_bytes))
    return found


def _least_bytes(entry: ModelEntry) -> int:
    """Of the device's memory, that it can work with."""
    staged = entry.staged_bytes if entry.staging is not Staging.OFF else 0
    return int(staged or entry.ready_bytes)


def _audio_memory_bytes(config: Config) -> int:
    """The bound over all requests' audio.

    Its share is an eighth: half of what the budgets of models leave by default. With 4 GB that is room for the longest
    recording, decoded, beside the largest upload, and for two more hours of audio that wait.
    """
    total_bytes, _ = memory.host_memory_bytes()
    return int(config.server.audio_memory) or total_bytes // 8


def limits(config: Config, names: set[str]) -> Limits:
    """The scheduler's bounds on the devices `names`; budgets of 0 are shares of what there is.

    Reads /proc and asks the driver. Raises DeviceUnreadable.
    """
    total_bytes, _ = memory.host_memory_bytes()
    residency = config.residency
    budgets = {CPU: int(residency.budget) or total_bytes // 2} if CPU in names else {}
    for name in sorted(names - {CPU}):
        budgets[name] = int(residency.vram_budget) or devices.total_bytes(name) - int(residency.vram_reserve)
    return Limits(
        devices=budgets,
        host_bytes=int(residency.park_budget) or total_bytes // 4,
        reserve_bytes={name: int(residency.vram_reserve) for name in names if name != CPU},
        queue_requests=residency.queue_requests,
        max_switch_wait_s=float(residency.max_switch_wait),
        batch_patience_s=float(residency.batch_patience),
        recycle=residency.recycle,
    )


def _profile(entry: ModelEntry, config: Config, device: str, staged_bytes: int, learnt: Footprint | None) -> Profile:
    residency = config.residency
    return Profile(
        model=entry.id,
        footprint=learnt or Footprint(staged_bytes or int(entry.ready_bytes), int(entry.parked_bytes)),
        device=device,
        keep_alive_s=float(residency.keep_alive if entry.keep_alive is None else entry.keep_alive),
        park_keep_alive_s=float(residency.park_keep_alive if entry.park_keep_alive is None else entry.park_keep_alive),
        pinned=entry.pinned,
        concurrency=entry.concurrency,
        staged_bytes=staged_bytes,
    )


def _fingerprint(entry: ModelEntry, config: Config, staged_bytes: int) -> str:
    lock = lockfile.read(config.places.locks_dir, f"runtime-{entry.runtime}")
    return fingerprint(entry, lock.digest if lock else "", _threads(entry, config), staged_bytes)


def _threads(entry: ModelEntry, config: Config) -> int:
    return entry.threads or config.residency.threads or configuration.cores()
