"""The daemon's half of `audioctl doctor`: what each check looks at, how it judges that, and what to type next.

Every check blocks and is run in a thread, by doctor.py; none changes anything, beyond a file that is gone at once.
"""

from __future__ import annotations

import errno
import os
import pwd
import re
import resource
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from audiod import devices
from audiod.config import Config
from audiod.gpu import gpus
from audiod.media.pool import MediaPool
from audiod.models import catalogue, install, mirrors
from audiod.models.catalogue import ModelEntry
from audiod.residency.events import Limits
from audiod.runtimes import build, lockfile
from audiod.supervisor.memory import control_group_limit_bytes, host_memory_bytes
from audiod.units import ByteSize
from audiod.voices import VoiceStore
from audioproto.diagnosis import Finding, Verdict, judge_space
from audioproto.errors import AudiodError, DeviceUnreadable, InstallFailed
from audioproto.types import Residency

OK, WARN, FAIL = Verdict

_DRIVER = Path("/proc/driver/nvidia/version")
_DRIVER_VERSION = re.compile(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)")

FEW_FILES = 4096
"""Open files below which a busy daemon runs out: a request holds up to four, each model a dozen."""


@dataclass(frozen=True, slots=True)
class Resident:
    """One model as the scheduler had it: its state, why, and the bytes it needs, measured where it ever ran."""

    state: Residency
    reason: str
    device: str
    ready_bytes: int
    parked_bytes: int
    staged: bool = False


@dataclass(frozen=True, slots=True)
class Patient:
    """The daemon when the examination began; a copy, because checks run in threads and the daemon goes on.

    `read_config` reads the configuration anew and raises ConfigInvalid. `entries` and `missing` are the library's.
    """

    config: Config
    entries: Mapping[str, ModelEntry]
    limits: Limits
    residents: Mapping[str, Resident]
    reserved_bytes: int
    """On the device."""
    read_config: Callable[[], Config]
    media: MediaPool
    voices: VoiceStore

    def wanted(self, entry: ModelEntry) -> bool:
        """Whether the configuration counts on the model, and it is not just one that could be installed."""
        return entry.embedded or entry.preload or entry.pinned


def config(patient: Patient) -> Iterator[Finding]:
    """The file and models.d: right, the same as in force, and safe from others."""
    file = patient.config.file
    shown = file or "the built-in configuration"
    try:
        fresh = patient.read_config()
        entries = catalogue.load(fresh.catalogue_dir)
    except AudiodError as error:
        fix = f"audiod check-config {file}".rstrip()
        yield Finding("config", FAIL, f"{error.message}; the one read before stays in force", fix)
        return
    if fresh != patient.config or entries != patient.entries:
        yield Finding("config", WARN, f"{shown} has changed since it was read", "audioctl reload")
    else:
        yield Finding("config", OK, f"{shown} is right, {len(entries)} models in {fresh.catalogue_dir}")
    for path in (Path(file), fresh.catalogue_dir) if file else ():
        if path.stat().st_mode & stat.S_IWOTH:
            yield Finding("config", FAIL, f"{path} may be changed by everyone here", f"sudo chmod o-w {path}")
    for alias, models in fresh.aliases.items():
        if unknown := [model for model in models if model not in entries]:
            found = f"alias {alias} names {', '.join(unknown)}, which {fresh.catalogue_dir} does not have"
            yield Finding("config", WARN, found, "audioctl models")


def user(patient: Patient) -> Iterator[Finding]:
    """Who the daemon is: what an attacker would be who got into a decoder or an engine."""
    name = _user_name(os.geteuid())
    if os.geteuid() == 0:
        yield Finding("user", WARN, "the daemon runs as root, and so do all engines", "sudo systemctl start audiod")
    else:
        yield Finding("user", OK, f"the daemon runs as {name}")


def state(patient: Patient) -> Iterator[Finding]:
    """Whether the daemon can really write where it keeps things, and nobody else can."""
    whose = _user_name(os.geteuid())
    good = []
    for directory in _directories(patient.config):
        mode = directory.stat().st_mode
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                file.write(b"audiod doctor")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            found = f"{whose} cannot write {directory}: {error.strerror}"
            if directory in (patient.config.state_dir, patient.config.cache_dir):
                yield Finding("state", FAIL, found, _mend(error, directory))
            else:  # models and runtimes may be shared and read-only on purpose
                yield Finding("state", WARN, f"{found}; nothing can be installed there", _mend(error, directory))
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            found = f"{directory} may be changed by everyone here, and engines run what is in it"
            yield Finding("state", FAIL, found, f"sudo chmod o-w {directory}")
            continue
        good.append(str(directory))
    if good:
        yield Finding("state", OK, f"{whose} can write {', '.join(good)}")


def disk(patient: Patient) -> Iterator[Finding]:
    """Free space and inodes, a line for each file system."""
    seen = set()
    for directory in _directories(patient.config):
        if (device := directory.stat().st_dev) in seen:
            continue
        seen.add(device)
        status = os.statvfs(directory)
        free_bytes = status.f_bavail * status.f_frsize
        inodes = status.f_favail if status.f_files else None
        verdict = judge_space(free_bytes, inodes)
        total = ByteSize(status.f_blocks * status.f_frsize)
        found = f"{ByteSize(free_bytes)} of {total} free in {directory}"
        found += ", no inode is left" if inodes == 0 else ""
        yield Finding("disk", verdict, found, "" if verdict is OK else f"sudo du -xhd2 {directory} | sort -h | tail")


def memory(patient: Patient) -> Iterator[Finding]:
    """Free memory against what the budgets still promise, and what the control group allows in all."""
    total_bytes, available_bytes = host_memory_bytes()
    limits = patient.limits
    reload = f"set residency.budget in {patient.config.file or 'audiod.toml'}, then audioctl reload"
    device_bytes = limits.devices.get(devices.CPU, 0)
    promised_bytes = max(0, device_bytes - patient.reserved_bytes)
    found = (
        f"{ByteSize(available_bytes)} of {ByteSize(total_bytes)} free; models may take {ByteSize(promised_bytes)} more"
    )
    allowed_bytes = control_group_limit_bytes()
    if allowed_bytes is not None and device_bytes + limits.host_bytes > allowed_bytes:
        wanted = f"{ByteSize(device_bytes)} for loaded and {ByteSize(limits.host_bytes)} for parked models"
        found = f"the budgets are {wanted}, but the control group may have {ByteSize(allowed_bytes)} in all"
        yield Finding("memory", FAIL, found, reload)
    elif promised_bytes > available_bytes:
        yield Finding("memory", WARN, f"{found}: a load may drive the host into swap", reload)
    else:
        yield Finding("memory", OK, found)


def limits(patient: Patient) -> Iterator[Finding]:
    """Open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        found = f"at most {count} open files: many requests at once will fail"
        yield Finding("limits", WARN, found, "sudo systemctl edit audiod, with LimitNOFILE=65536 under [Service]")
    else:
        yield Finding("limits", OK, f"open files: {count}")


def voices(patient: Patient) -> Iterator[Finding]:
    """Whether all that clients have stored could be read when the daemon started."""
    for broken in patient.voices.broken:
        yield Finding("voices", FAIL, f"a stored voice or consent is left out: {broken}", "restore it from a backup")
    if not patient.voices.broken:
        counts = len(patient.voices.voices.records), len(patient.voices.consents.records)
        yield Finding("voices", OK, f"{counts[0]} voices and {counts[1]} consents are stored")


def gpu(patient: Patient) -> Iterator[Finding]:
    """The driver by /proc, the devices by NVML. Whether an engine's library suits them is its runtime's check."""
    device = patient.config.residency.device
    try:
        match = _DRIVER_VERSION.search(_DRIVER.read_text())
        driver = f"NVIDIA driver {match[1] if match else 'of unknown version'}"
        there_are = gpus()
    except FileNotFoundError:
        verdict, fix = (
            (FAIL, "install NVIDIA's driver, or set residency.device") if device.startswith("cuda") else (OK, "")
        )
        yield Finding("gpu", verdict, f"no NVIDIA driver is loaded; models are to run on {device}, as configured", fix)
        return
    except DeviceUnreadable as error:
        # The usual cause by far: the driver's package was upgraded under the loaded module.
        yield Finding("gpu", FAIL, f"{driver} is loaded, but {error.message}", "sudo reboot")
        return
    if not there_are:
        found = f"{driver} is loaded, but shows no GPU, or its library libnvidia-ml.so.1 is missing"
        yield Finding("gpu", WARN, found, "nvidia-smi; in a container, give it the GPUs")
    for number, one in enumerate(there_are):
        name = f"cuda:{number}, {one.name}, compute capability {one.capability}"
        try:
            reading = devices.meter(f"cuda:{number}").read_now(())
        except DeviceUnreadable as error:
            yield Finding("gpu", FAIL, f"{name}, {driver}: {error.message}", error.hint)
        else:
            free, total = ByteSize(reading.free_bytes), ByteSize(reading.total_bytes)
            yield Finding("gpu", OK, f"{name}, {free} of {total} free, {driver}")
    try:
        devices.resolve(device)
    except AudiodError as error:
        yield Finding("gpu", FAIL, error.message, error.hint)


def runtime(name: str, patient: Patient) -> Iterator[Finding]:
    """Whether an engine's environment is built for its present lock file and for this host, and works."""
    check = f"runtime {name}"
    places = patient.config.places
    users = [entry for entry in patient.entries.values() if entry.runtime == name]
    fix = f"audioctl runtime install {name}"
    lock = lockfile.read(places.locks_dir, f"runtime-{name}")
    if lock is None:
        found = f"there is no lock file runtime-{name}.txt in {places.locks_dir}"
        yield Finding(check, FAIL, found, "audioctl config check")
        return
    built = build.built(name, places.locks_dir, places.runtimes_dir)
    if built is None:
        wanted = any(patient.wanted(entry) for entry in users)
        older = build.outdated(name, places.locks_dir, places.runtimes_dir)
        if older and (wanted or any(install.missing(entry, places) == install.RUNTIME for entry in users)):
            yield Finding(check, FAIL, f"{older} was built for another lock file or another Python", fix)
        elif older:
            found = f"{older} was built for another lock file or another Python, and no installed model needs it"
            yield Finding(check, WARN, found, f"audioctl runtime remove {name}")
        elif wanted:
            yield Finding(check, WARN, "not built", fix)
        else:
            yield Finding(check, OK, "not built, and no installed model needs it")
        return
    try:
        tried = build.verify(name, built, lock)
    except (InstallFailed, DeviceUnreadable) as error:
        last = error.message.splitlines()[-1].strip()
        # A build counts as finished for ever; only without it is it built again.
        yield Finding(check, FAIL, f"it does not work: {last}", f"audioctl runtime remove {name} && {fix}")
        return
    imported = " ".join(lock.imports) or "nothing"
    found = f"built for its lock file; {imported} imported in {tried.took_s:.1f} s{build.describe(tried)}"
    try:
        choice = build.fitting(lock, places.building)
    except AudiodError as error:
        yield Finding(check, WARN, f"{found}; {error.message}", error.hint)
        return
    if choice and choice.tag != built.torch:
        found += f"; this host should have torch for {choice.tag}, not {built.torch}: {'; '.join(choice.reasons)}"
        yield Finding(check, WARN, found, fix)
    else:
        yield Finding(check, OK, found)


def model(name: str, patient: Patient) -> Iterator[Finding]:
    """Whether a model is all there, fits into the budgets, and has not failed."""
    check = f"model {name}"
    entry, resident = patient.entries[name], patient.residents.get(name)
    places = patient.config.places
    if not (Path(__file__).parents[2] / "audioworker" / "engines" / f"{entry.engine}.py").exists():
        yield Finding(check, FAIL, f"there is no engine {entry.engine!r}", "audioctl config check")
    elif lacking := install.missing(entry, places):
        download, fix = ByteSize(install.download_bytes(entry, places)), install.remedy(entry, lacking)
        if install.installed_from(entry, places):
            yield Finding(check, FAIL, f"was installed, but now lacks {lacking}", fix)
        elif patient.wanted(entry) or entry.path:
            yield Finding(check, FAIL if entry.preload or entry.pinned else WARN, f"lacks {lacking}", fix)
        else:
            yield Finding(check, OK, f"not installed; `{fix}` fetches {download}")
    elif resident is None:
        yield Finding(check, WARN, "the daemon does not know it yet", "audioctl reload")
    elif resident.state is Residency.FAILED:
        yield Finding(check, FAIL, f"failed: {resident.reason}", f"audioctl load {name}")
    elif problem := _too_large(resident, patient.limits):
        edit = f"raise it in {patient.config.file or 'audiod.toml'}, then audioctl reload"
        yield Finding(check, FAIL, f"can never be loaded: {problem}", edit)
    else:
        loaded = "loaded (staged)" if resident.staged else "loaded"
        needs = f"{ByteSize(resident.ready_bytes)} {loaded}, {ByteSize(resident.parked_bytes)} parked"
        yield Finding(check, OK, f"installed, {resident.state}; needs {needs}")


def network(patient: Patient) -> Iterator[Finding]:
    """The places that models and runtimes come from. Only pip's has no substitute."""
    told = mirrors.ask(patient.entries.values(), patient.config.places)
    packages = any(mirror.reachable for mirror in told if mirror.name == "pip")
    for mirror in told:
        verdict = OK if mirror.reachable else WARN if mirror.name != "pip" or packages else FAIL
        found = f"{mirror.detail} ({mirror.took_s:.1f} s)"
        yield Finding(f"mirror {mirror.name}", verdict, found, mirror.fix)


def _directories(config: Config) -> Iterable[Path]:
    """Where things are kept. What is made only when it is needed is left out, for it will be in one of the others."""
    wanted = (config.state_dir, config.models_dir, config.runtimes_dir, config.cache_dir)
    return [directory for directory in dict.fromkeys(wanted) if directory == config.state_dir or directory.exists()]


def _too_large(resident: Resident, limits: Limits) -> str:
    budget_key = "residency.budget" if resident.device == devices.CPU else "residency.vram_budget"
    for needs, budget, key in (
        (resident.ready_bytes, limits.devices.get(resident.device, 0), budget_key),
        (resident.parked_bytes, limits.host_bytes, "residency.park_budget"),
    ):
        if needs > budget:
            return f"it needs {ByteSize(needs)} of a {key} of {ByteSize(budget)}"
    return ""


def _mend(error: OSError, directory: Path) -> str:
    match error.errno:
        case errno.EROFS:
            return f"findmnt --target {directory}"
        case errno.ENOSPC | errno.EDQUOT:
            return f"df -h {directory}"
        case _:
            return f"sudo chown -R {_user_name(os.geteuid())}: {directory}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
