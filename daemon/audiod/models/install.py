"""Installs models: builds the runtime, fetches the parts, and says what an uninstalled model lacks.

Blocks on disk and network: run it in a process of its own, such as `audiod install`. Only `missing`, `remedy`,
`model_dir` and `download_bytes` are cheap enough for the daemon: they look, and never fetch.

    <models_dir>/owner--name/                    all files of the model and nothing else
    <models_dir>/owner--name/.complete           which parts they are, and which source each came from
    <models_dir>/.owner--name.partial/           what is on its way; kept after an interruption, never counted
    <models_dir>/.owner--name.lock               held by whoever installs
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from audiod import durable
from audiod.models import safetensors, sources
from audiod.models.catalogue import HubSource, ModelEntry, ModelScopeSource, Part, Source
from audiod.runtimes import build, lockfile
from audiod.runtimes.build import Settings, disk_bytes
from audiod.runtimes.pip import Progress
from audiod.units import ByteSize
from audioproto.errors import BadRequest, InstallFailed, ModelNotInstalled, NotFound


class Places(msgspec.Struct, frozen=True):
    """The directories that installing works in, and where things come from."""

    locks_dir: Path
    runtimes_dir: Path
    models_dir: Path
    hubs: tuple[str, ...] = ()
    """Base URLs of the model hub and its mirrors, tried in order; none forbids their use."""
    modelscopes: tuple[str, ...] = ()
    """The same for ModelScope."""
    building: Settings = Settings()
    made_dir: Path | None = None
    """What engines have made of stored voices, in a directory for each model; None where there is none."""


RUNTIME = "runtime"
"""What a model lacks whose files are all there."""


class _Fetched(msgspec.Struct, frozen=True):
    """One part in a stamp. `definition` tells whether the catalogue still means the same files."""

    source: str
    definition: str
    files: dict[str, int]
    """Sizes in bytes by path."""
    sha256: dict[str, str] = {}
    """By path; a stamp of an older audiod has none."""


_Stamp = dict[str, _Fetched]


def model_dir(entry: ModelEntry, places: Places) -> Path:
    """Where the model's files are, or would be; it need not exist."""
    return Path(entry.path) if entry.path else places.models_dir / entry.directory_name


def missing(entry: ModelEntry, places: Places) -> str:
    """What the model lacks, in a few words; empty when it is installed.

    Looks at the disk, and reads one small file; in a directory of the operator's, also headers of safetensors.
    """
    lacking = [] if build.find(entry.runtime, places.locks_dir, places.runtimes_dir) else [RUNTIME]
    if entry.path and not Path(entry.path).is_dir():
        lacking.append(f"directory {entry.path}")
    else:
        parts, path = _lacking_parts(entry, places), entry.path
        lacking += [f"{_absent(part, Path(path))} in {path}" if path else part.name for part in parts]
        lacking += [f"the rest of {path}" for path in _cut_files(entry)]
    return ", ".join(lacking)


def remedy(entry: ModelEntry, lacking: str) -> str:
    """What to type, or do, where `missing` said that the model lacks something."""
    if lacking == RUNTIME:
        return f"audioctl runtime install {entry.runtime}"
    if entry.path:
        return f"put the files into {entry.path}, or remove `path` and audioctl models pull {entry.id}"
    return f"audioctl models pull {entry.id}"


def not_installed(entry: ModelEntry, lacking: str) -> ModelNotInstalled:
    """The error for a model that lacks what `missing` said, with the command that gets it."""
    said = f"{entry.id} is not installed: {lacking} missing"
    return ModelNotInstalled(said, hint=remedy(entry, lacking), param="model")


def download_bytes(entry: ModelEntry, places: Places) -> int:
    """About how much installing would fetch now; 0 when the model is installed."""
    total = 0 if entry.path else sum(int(part.disk_bytes) for part in _lacking_parts(entry, places))
    if not build.find(entry.runtime, places.locks_dir, places.runtimes_dir):
        lock = lockfile.read(places.locks_dir, f"runtime-{entry.runtime}")
        total += lock.download_bytes if lock else 0
    return total


def installed_from(entry: ModelEntry, places: Places) -> dict[str, str]:
    """The source of each installed part by the part's name."""
    return {name: part.source for name, part in _read_stamp(places.models_dir / entry.directory_name).items()}


def install(entry: ModelEntry, places: Places, progress: Progress) -> None:
    """Build the runtime and fetch every part that is not there yet.

    An interruption at any moment leaves nothing that counts as installed and is not; running again goes on. Waits
    while another thread or process installs the same model. Raises InstallFailed.
    """
    for notice in entry.licence_notices:
        progress(f"licence: {notice.line}")
    if not entry.path:
        _require_space(entry, places)  # before the runtime, which takes minutes
    build.build(entry.runtime, places.locks_dir, places.runtimes_dir, progress, places.building)
    if entry.path:
        if lacking := missing(entry, places):
            raise InstallFailed(f"{entry.id} lacks {lacking}", hint=remedy(entry, lacking))
        return
    if not entry.weights:
        return
    places.models_dir.mkdir(parents=True, exist_ok=True)
    lock = places.models_dir / f".{entry.directory_name}.lock"
    with durable.claim(lock, lambda: progress("waiting for another install")) as held:
        lacking_parts = _lacking_parts(entry, places)
        work = _work_dir(entry, places)
        _require_space(entry, places)
        context = sources.Context(places.locks_dir, places.hubs, places.modelscopes, held, progress)
        failures = []
        for part in lacking_parts:
            try:
                _install_part(entry, part, places, work, context)
            except InstallFailed as error:
                failures.append(error)
        if failures:
            text = "\n".join(failure.message for failure in failures)
            raise InstallFailed(text, hint=failures[0].hint)
        shutil.rmtree(work, ignore_errors=True)


def verify(entry: ModelEntry, places: Places, progress: Progress) -> None:
    """Read every file of an installed model: whether its hash is that of when it came, or that of the catalogue.

    Says each file. Raises ModelNotInstalled, and InstallFailed with every file that is wrong.
    """
    if lacking := missing(entry, places):
        raise not_installed(entry, lacking)
    directory = model_dir(entry, places)
    wrong = []
    for path, wanted in _hashes(entry, places).items():
        file = directory / path
        try:
            got = sha256(file)
            if wanted and got not in wanted:
                raise InstallFailed(f"SHA-256 is {got}, not {' or '.join(sorted(wanted))}")
            if file.suffix == ".safetensors":
                safetensors.check(file)
        except (OSError, InstallFailed) as error:
            wrong.append(f"{path}: {error.strerror if isinstance(error, OSError) else error.message}")
            progress(wrong[-1])
        else:
            size = ByteSize(file.stat().st_size)
            progress(f"{path}: {'as it was pinned' if wanted else 'readable; no hash of it is known'}, {size}")
    if wrong:
        again = f"audioctl models remove {entry.id} && audioctl models pull {entry.id}"
        raise InstallFailed(
            f"{len(wrong)} files of {entry.id} in {directory} are wrong:\n" + "\n".join(f"  {it}" for it in wrong),
            hint="put the right files there" if entry.path else again,
        )


def remove(entry: ModelEntry, places: Places, progress: Progress) -> int:
    """Remove the model's files, finished or on their way, and what it made of voices; returns the bytes of its files.

    Its runtime stays.

    Raises BadRequest for a directory of the operator's own, NotFound where there is nothing.
    """
    if entry.path:
        raise BadRequest(f"the files of {entry.id} are yours: `path` is {entry.path}", hint="remove them yourself")
    final, work = places.models_dir / entry.directory_name, _work_dir(entry, places)
    if not final.exists() and not work.exists():
        hint = (
            "audioctl models" if entry.weights else f"its weights come with it: audioctl runtime remove {entry.runtime}"
        )
        raise NotFound(f"there are no files of {entry.id}", hint=hint)
    lock = places.models_dir / f".{entry.directory_name}.lock"
    with durable.claim(lock, lambda: progress("waiting for another install")):
        freed_bytes = disk_bytes(final) + disk_bytes(work)
        # What is left of it by an interruption does not count.
        (final / durable.STAMP).unlink(missing_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
        if places.made_dir is not None:
            shutil.rmtree(places.made_dir / entry.directory_name, ignore_errors=True)
        progress(f"removed, {ByteSize(freed_bytes)} are free again")
    return freed_bytes


def sha256(file: Path) -> str:
    """Hex SHA-256 of a file. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _hashes(entry: ModelEntry, places: Places) -> dict[str, set[str]]:
    """The SHA-256 that each of the model's files may have, by path; none where it is not known."""
    found: dict[str, set[str]] = {}
    if not entry.path:
        stamp = _read_stamp(places.models_dir / entry.directory_name)
        for part in entry.weights:
            fetched = stamp[part.name]
            # What an older audiod fetched has no hashes in its stamp, but most sources pin theirs.
            source = next((source for source in part.sources if _definition(source) == fetched.definition), None)
            known = source.pinned() if source else {}
            found |= {path: {known.get(path) or fetched.sha256.get(path, "")} - {""} for path in fetched.files}
        return found
    present = [str(file.relative_to(entry.path)) for file in Path(entry.path).rglob("*") if file.is_file()]
    for source in (source for part in entry.weights for source in part.sources):
        # Which source an operator's files are from is not known.
        if source.made(present):
            for path, pinned in source.pinned().items():
                found.setdefault(path, set()).update({pinned} - {""})
    return found


def _work_dir(entry: ModelEntry, places: Places) -> Path:
    return places.models_dir / f".{entry.directory_name}.partial"


def _require_space(entry: ModelEntry, places: Places) -> None:
    """Raise InstallFailed where what the model lacks does not fit on the disk, less what is on its way already."""
    needed_bytes = sum(part.disk_bytes * part.copies for part in _lacking_parts(entry, places))
    if needed_bytes:
        places.models_dir.mkdir(parents=True, exist_ok=True)
        here_bytes = disk_bytes(_work_dir(entry, places))
        durable.require_space(places.models_dir, max(0, needed_bytes - here_bytes), entry.id)


_NAMED = 3
"""Files that a directory lacks, by name; more are counted."""

_POINTER = b"version https://git-lfs"
"""Begins a file that stands for one which git has yet to fetch. Source: Git LFS, docs/spec.md."""


def _cut_files(entry: ModelEntry) -> list[Path]:
    """Weights in a directory of the operator's that are half copied, or stand for what git has yet to fetch."""
    if not entry.path:
        return []
    named = {Path(entry.path) / path for part in entry.weights for source in part.sources for path in source.pinned()}
    return [file for file in sorted(named.union(Path(entry.path).rglob("*.safetensors"))) if _is_cut(file)]


def _is_cut(file: Path) -> bool:
    try:
        if file.suffix == ".safetensors":
            safetensors.check(file)
            return False
        with file.open("rb") as opened:
            return opened.read(len(_POINTER)) == _POINTER
    except FileNotFoundError:  # of another source: what none gives is told as lacking
        return False
    except (OSError, InstallFailed):
        return True


def _absent(part: Part, directory: Path) -> str:
    """What a directory lacks of a part: files of the source that it lacks least of, or where none names its files, the
    part by its own name."""
    lacks = [[path for path in source.pinned() if not (directory / path).exists()] for source in part.sources]
    absent = min(filter(None, lacks), key=len, default=[])
    more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
    return ", ".join(absent[:_NAMED]) + more or part.name


def _lacking_parts(entry: ModelEntry, places: Places) -> list[Part]:
    if entry.path:
        root = Path(entry.path)
        present = [str(file.relative_to(root)) for file in root.rglob("*")] if entry.weights else []
        return [part for part in entry.weights if not any(source.made(present) for source in part.sources)]
    directory = places.models_dir / entry.directory_name
    stamp = _read_stamp(directory)
    return [part for part in entry.weights if not _is_whole(part, stamp.get(part.name), directory)]


def _is_whole(part: Part, fetched: _Fetched | None, directory: Path) -> bool:
    # One source that still means these files is enough: a source more or less in the catalogue fetches nothing anew.
    if fetched is None or fetched.definition not in map(_definition, part.sources):
        return False
    try:
        return all((directory / path).stat().st_size == size for path, size in fetched.files.items())
    except OSError:
        return False


def _read_stamp(directory: Path) -> _Stamp:
    try:
        return msgspec.json.decode((directory / durable.STAMP).read_bytes(), type=_Stamp)
    except (OSError, msgspec.DecodeError):
        return {}


def _definition(source: Source) -> str:
    return hashlib.sha256(msgspec.json.encode(source, order="sorted")).hexdigest()[:16]


def _content(source: Source) -> str:
    """Names what the source gives: two hubs whose files are pinned to the same hashes go on with each other's."""
    pinned = source.pinned()
    if isinstance(source, HubSource | ModelScopeSource) and all(pinned.values()):
        return hashlib.sha256(msgspec.json.encode(pinned, order="sorted")).hexdigest()[:16]
    return _definition(source)


def _install_part(entry: ModelEntry, part: Part, places: Places, work: Path, context: sources.Context) -> None:
    failures: list[InstallFailed] = []
    for source in part.sources:
        scratch = work / f"{part.name}-{_content(source)}"
        files = work / "files"
        shutil.rmtree(files, ignore_errors=True)
        for directory in (scratch, files):
            directory.mkdir(parents=True, exist_ok=True)
        try:
            sources.fetch(source, files, scratch, context)
        except InstallFailed as error:
            failures.append(error)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                shutil.rmtree(work, ignore_errors=True)  # half a model must not keep a full disk full
            failures.append(InstallFailed(f"{error}", hint=f"df -h {places.models_dir}"))
        else:
            _publish(entry, part, source, places, files)
            shutil.rmtree(scratch)
            return
        shutil.rmtree(files, ignore_errors=True)
        context.progress(f"{part.name}: not from {source.label}: {failures[-1].message.splitlines()[0]}")
    reasons = "\n".join(
        f"  {source.label}: {error.message}" for source, error in zip(part.sources, failures, strict=True)
    )
    raise InstallFailed(f"no source gave {part.name}:\n{reasons}", hint=failures[0].hint)


def _publish(entry: ModelEntry, part: Part, source: Source, places: Places, files: Path) -> None:
    """Put a fetched part beside those that are whole, as a new directory that takes the old one's place.

    So the directory never holds a file that its stamp does not name, such as the vocabulary of another source.
    """
    final = places.models_dir / entry.directory_name
    stamp = _read_stamp(final)
    sizes = {str(path.relative_to(files)): path.stat().st_size for path in sorted(files.rglob("*")) if path.is_file()}
    kept = {
        other.name: stamp[other.name]
        for other in entry.weights
        if other is not part and _is_whole(other, stamp.get(other.name), final)
    }
    for path in (path for fetched in kept.values() for path in fetched.files):
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(final / path, files / path)
    fetched = _Fetched(source.label, _definition(source), sizes, {path: sha256(files / path) for path in sizes})
    durable.write_stamp(files, msgspec.json.format(msgspec.json.encode(kept | {part.name: fetched})))
    replaced = files.parent / "replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    files.rename(final)
    durable.sync_directory(places.models_dir)
    shutil.rmtree(replaced, ignore_errors=True)
