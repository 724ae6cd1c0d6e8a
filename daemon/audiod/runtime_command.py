"""`audiod runtime` and `audiod models`: which there are, and one runtime or model installed, tried or removed.

Reads no configuration and parses no command line; __main__ does. Never runs inside the daemon, which spawns it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from audiod.models import install
from audiod.models.catalogue import ModelEntry
from audiod.models.install import Places
from audiod.models.library import Library
from audiod.runtimes import build, lockfile
from audiod.runtimes.build import Built
from audiod.runtimes.pip import Progress
from audioproto.control import ModelInfo, ModelList, RuntimeInfo, RuntimeList
from audioproto.errors import AudiodError, ModelNotFound, NotFound, PermissionDenied


def runtimes(entries: Iterable[ModelEntry], places: Places) -> RuntimeList:
    """Every runtime that can be built, alphabetically. Reads the disk and asks the driver: not for the event loop."""
    users: dict[str, list[str]] = {}
    for entry in entries:
        users.setdefault(entry.runtime, []).append(entry.id)
    return RuntimeList([_runtime_info(name, users.get(name, []), places) for name in build.names(places.locks_dir)])


def _runtime_info(name: str, models: list[str], places: Places) -> RuntimeInfo:
    lock = build.require_lock(name, places.locks_dir)
    built = build.built(name, places.locks_dir, places.runtimes_dir)
    fits, reason = "", ""
    try:
        if choice := build.fitting(lock, places.building):
            fits, reason = choice.tag, "; ".join(choice.reasons)
    except AudiodError as error:
        reason = error.message
    tag = built.torch if built else fits
    torch = lockfile.read(places.locks_dir, f"torch-{tag}") if tag else None
    outdated = build.outdated(name, places.locks_dir, places.runtimes_dir)
    return RuntimeInfo(
        runtime=name,
        models=models,
        installed=built is not None,
        outdated=built is None and outdated is not None,
        torch=tag,
        fits=fits,
        reason=reason,
        path=str(built.directory) if built else "",
        disk_bytes=build.disk_bytes(built.directory) if built else 0,
        download_bytes=0 if built else lock.download_bytes + (torch.download_bytes if torch else 0),
        licence=lock.licence,
    )


def models(library: Library, places: Places) -> ModelList:
    """The catalogue, in its order. Reads the disk: not for the event loop."""
    return ModelList([_model_info(entry, library, places) for entry in library.entries.values()])


def _model_info(entry: ModelEntry, library: Library, places: Places) -> ModelInfo:
    missing, directory = library.missing(entry), install.model_dir(entry, places)
    return ModelInfo(
        model=entry.id,
        engine=entry.engine,
        task=entry.task,
        description=entry.description,
        languages=entry.languages,
        voices=list(entry.voices),
        aliases=library.aliases_of(entry.id),
        licence=entry.licence,
        installed=not missing,
        missing=missing,
        hint=install.remedy(entry, missing) if missing else "",
        download_bytes=install.download_bytes(entry, places),
        path=str(directory) if directory.is_dir() else "",
        licence_notices=list(entry.licence_notices),
    )


def install_runtime(name: str, places: Places, say: Progress) -> str:
    """Build it, with the build of torch that fits now. Returns what was done. Raises as build.build."""
    build.require_lock(name, places.locks_dir)
    require_owner(places.runtimes_dir, f"systemctl start audiod-runtime@{name}")
    build.build(name, places.locks_dir, places.runtimes_dir, say, places.building, choose_again=True)
    return f"runtime {name} is installed"


def verify_runtime(name: str, places: Places, say: Progress) -> str:
    """Import its libraries and compute. Returns what was found. Raises NotFound, InstallFailed."""
    lock = build.require_lock(name, places.locks_dir)
    built: Built | None = build.built(name, places.locks_dir, places.runtimes_dir)
    if built is None:
        raise NotFound(f"runtime {name} is not installed", hint=f"audioctl runtime install {name}")
    say(f"runtime {name}: importing {' '.join(lock.imports) or 'nothing'}")
    tried = build.verify(name, built, lock)
    return f"runtime {name} works, after {tried.took_s:.1f} s{build.describe(tried)}"


def remove_runtime(name: str, places: Places, say: Progress) -> str:
    require_owner(places.runtimes_dir, f"sudo -u audiod audiod runtime remove {name}")
    build.remove(name, places.locks_dir, places.runtimes_dir, say)
    return f"runtime {name} is removed"


def verify_model(name: str, entries: Mapping[str, ModelEntry], places: Places, say: Progress) -> str:
    install.verify(_entry(name, entries), places, say)
    return f"{name} is as it should be"


def remove_model(name: str, entries: Mapping[str, ModelEntry], places: Places, say: Progress) -> str:
    entry = _entry(name, entries)
    require_owner(places.models_dir, f"sudo -u audiod audiod models remove {name}")
    install.remove(entry, places, say)
    return f"{name} is removed"


def _entry(name: str, entries: Mapping[str, ModelEntry]) -> ModelEntry:
    if name not in entries:
        raise ModelNotFound(f"there is no model {name!r}", hint=f"known are: {', '.join(entries)}")
    return entries[name]


def require_owner(directory: Path, instead: str) -> None:
    """Refuse to work as root in a directory of the service's account, which could not remove what root made there."""
    while not directory.exists():
        directory = directory.parent
    if os.geteuid() == 0 and directory.stat().st_uid != 0:
        raise PermissionDenied(f"{directory} is not root's: what root makes there stays in the way", hint=instead)
