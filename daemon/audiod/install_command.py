"""`audiod install`: installs several models side by side, with a progress line for each step and a table at the end.

Reads no configuration and parses no command line; __main__ does. Never runs inside the daemon, which spawns it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from audiod.models import catalogue, install
from audiod.models.catalogue import ModelEntry
from audiod.models.install import Places
from audiod.runtime_command import require_owner
from audiod.runtimes.pip import Progress
from audioproto.errors import AudiodError, InstallFailed, Interrupted, ModelNotFound

_AT_ONCE = 3
"""Installing is mostly waiting for a package index and for the disk."""
_SAY: Progress = partial(print, flush=True)
"""Flushed, because the daemon reads these lines from a pipe while the work goes on."""


def run(
    names: Sequence[str],
    *,
    all_embedded: bool,
    catalogue_dir: Path,
    places: Places,
    say: Progress = _SAY,
) -> None:
    """Install the models `names`, and every embedded one with `all_embedded`; one that fails does not stop the others.

    `say` takes each line of progress, from any thread, one at a time. Raises ModelNotFound, and PermissionDenied for
    root in directories of the service's, before anything is done; InstallFailed at the end if any failed; Interrupted
    on Ctrl-C.
    """
    entries = _choose(catalogue.load(catalogue_dir), names, all_embedded)
    for directory in (places.runtimes_dir, places.models_dir):
        require_owner(directory, " ".join(["systemctl start", *(f"audiod-pull@{entry.id}" for entry in entries)]))
    lacking = [entry for entry in entries if install.missing(entry, places)]
    if not lacking:
        say(f"installed: {', '.join(entry.id for entry in entries) or 'nothing was asked for'}")
        return
    failed = _install_all(lacking, places, say)
    if failed and len(entries) == 1:
        raise next(iter(failed.values()))
    for line in _table(entries, places):
        say(line)
    if failed:
        raise InstallFailed(
            f"{len(failed)} of {len(entries)} models could not be installed: {', '.join(failed)}",
            hint=next(iter(failed.values())).hint or f"audiod install {' '.join(failed)}",
        )


def _choose(entries: dict[str, ModelEntry], names: Sequence[str], all_embedded: bool) -> list[ModelEntry]:
    for name in names:
        if name not in entries:
            raise ModelNotFound(f"there is no model {name!r}", hint=f"known are: {', '.join(entries)}")
    return [entry for entry in entries.values() if entry.id in names or (all_embedded and entry.embedded)]


def _install_all(entries: Sequence[ModelEntry], places: Places, say: Progress) -> dict[str, AudiodError]:
    """Install side by side; returns the errors by model id."""
    saying = threading.Lock()
    width = max(len(entry.id) for entry in entries)

    def install_one(entry: ModelEntry) -> AudiodError | None:
        def progress(line: str) -> None:
            with saying:
                say(f"{entry.id:<{width}}  {line}")

        try:
            install.install(entry, places, progress)
        except (AudiodError, OSError) as error:
            failed = error if isinstance(error, AudiodError) else InstallFailed(f"{entry.id}: {error}")
            for line in failed.message.splitlines() if len(entries) > 1 else ():
                progress(line)
            return failed
        progress("installed")
        return None

    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="install")
    try:
        errors = list(pool.map(install_one, entries))
    except KeyboardInterrupt as error:
        # The same Ctrl-C reached pip and npm, so that the threads are about to end.
        raise Interrupted("the installation was interrupted", hint="run the same again: it goes on") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return {entry.id: error for entry, error in zip(entries, errors, strict=True) if error}


def _table(entries: Sequence[ModelEntry], places: Places) -> Iterator[str]:
    rows = [("MODEL", "STATE", "WEIGHTS FROM")]
    for entry in entries:
        lacking = install.missing(entry, places)
        if entry.path or not entry.weights:
            origin = entry.path or "its runtime"
        else:
            origin = ", ".join(install.installed_from(entry, places).values())
        rows.append((entry.id, f"lacks {lacking}" if lacking else "installed", origin))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for model, state, origin in rows:
        yield f"{model:<{widths[0]}}  {state:<{widths[1]}}  {origin}".rstrip()
