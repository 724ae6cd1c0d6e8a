"""The CLI's half of `audioctl doctor`: what whoever types it can see of the host, with or without a daemon.

Every check only looks, and returns what it found; commands/doctor.py shows it. Imported by that verb only.
"""

from __future__ import annotations

import grp
import http.client
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit

import msgspec

from audioctl import programs
from audioctl.output import size
from audioproto.diagnosis import CONTROL_SOCKET_MODE, Finding, Verdict, judge_space
from audioproto.errors import ErrorBody, NotFound

OK, WARN, FAIL = Verdict

GROUP = "audiod"
"""The operator group's name where the configuration cannot be read."""

SERVICE = "audiod.service"
STATE_DIR = "/var/lib/audiod"

_PROGRAM_S = 15.0
_HTTP_S = 5.0
_SERVICE_FACTS = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "WatchdogUSec", "UnitFileState")


class _Control(msgspec.Struct):
    socket: str = ""
    group: str = GROUP


class _Storage(msgspec.Struct):
    state_dir: str = STATE_DIR


class Settings(msgspec.Struct):
    """The few keys of the configuration that this side needs, as `audiod check-config --json` prints them."""

    control: _Control = msgspec.field(default_factory=_Control)
    storage: _Storage = msgspec.field(default_factory=_Storage)
    file: str = ""


class _Refused(msgspec.Struct):
    error: ErrorBody


def settings(file: str | None) -> tuple[Settings, Finding]:
    """What `audiod check-config` says of `file` (None: the one a daemon would read); defaults where it is wrong."""
    try:
        command = [programs.audiod(), "check-config", "--json", *([file] if file else [])]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROGRAM_S)
        if ran.returncode == 0:
            found = msgspec.json.decode(ran.stdout, type=Settings)
            return found, Finding("config", OK, f"{found.file or 'the built-in configuration'} is right")
        refused = msgspec.json.decode(ran.stderr, type=_Refused).error
        fix = refused.hint or "audioctl config check"
        return Settings(), Finding("config", FAIL, refused.message, fix)
    except NotFound as error:
        return Settings(), Finding("config", WARN, error.message, error.hint)
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        return Settings(), Finding("config", FAIL, f"audiod check-config does not work: {error}", "audiod check-config")


def control_socket(path: str, group: str) -> Finding:
    """Who may open the control socket. That it is there at all is for the caller to know."""
    try:
        status = Path(path).stat()
    except OSError as error:
        return Finding("socket", FAIL, f"{path}: {error.strerror}", f"ls -ld {Path(path).parent}")
    mode = stat.S_IMODE(status.st_mode)
    shown = f"{path} has mode {mode:04o}, {_user(status.st_uid)}:{_group(status.st_gid)}"
    restore = f"sudo chmod {CONTROL_SOCKET_MODE:o} {path}"
    if not stat.S_ISSOCK(status.st_mode):
        return Finding("socket", FAIL, f"{path} is no socket", f"ls -l {path}")
    if mode & 0o007:
        return Finding("socket", FAIL, f"{shown}: everyone on this host may open it", restore)
    if mode & CONTROL_SOCKET_MODE != CONTROL_SOCKET_MODE:
        return Finding("socket", FAIL, f"{shown}: its group may not open it", restore)
    try:
        wanted = grp.getgrnam(group).gr_gid
    except KeyError:
        return Finding("socket", OK, f"{shown}; there is no group {group}, so only its owner and root may operate")
    if status.st_gid != wanted:
        return Finding("socket", WARN, f"{shown}: members of {group} may not open it", f"sudo chgrp {group} {path}")
    return Finding("socket", OK, shown)


def you(group: str) -> Finding:
    """What whoever asks may do."""
    uid = os.geteuid()
    name = _user(uid)
    join = f"sudo usermod -aG {group} {name}"
    if uid == 0:
        return Finding("you", OK, "you are root, and may do everything")
    try:
        operators = grp.getgrnam(group)
    except KeyError:
        return Finding("you", OK, f"you are {name}; there is no group {group} on this host")
    if operators.gr_gid in (os.getegid(), *os.getgroups()):
        return Finding("you", OK, f"you are {name}, in the group {group}, and may operate")
    if name in operators.gr_mem:
        found = f"you are {name}, and in the group {group} only since you logged in"
        return Finding("you", WARN, found, f"newgrp {group}")
    return Finding("you", WARN, f"you are {name}, and not in the group {group}", f"{join}, then log in again")


def service(*, answers: bool) -> list[Finding]:
    """What systemd says of the service, where there is one. `answers`: a daemon does, however it was started."""
    systemctl = which("systemctl")
    # As sd_booted(3) has it.
    if systemctl is None or not Path("/run/systemd/system").is_dir():
        return [Finding("service", OK, "this host is not run by systemd")]
    command = [systemctl, "show", SERVICE, f"--property={','.join(_SERVICE_FACTS)}"]
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROGRAM_S)
    if shown.returncode:
        return [Finding("service", WARN, f"systemctl says: {shown.stderr.strip()}", f"systemctl status {SERVICE}")]
    facts = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    return list(judge_service(facts, answers=answers))


def judge_service(facts: Mapping[str, str], *, answers: bool) -> Iterator[Finding]:
    """From the properties of systemctl show (org.freedesktop.systemd1(5))."""
    if facts.get("LoadState") == "not-found":
        yield Finding("service", OK, f"there is no {SERVICE}; this daemon was started in another way")
        return
    log = "journalctl -u audiod -n 50"
    active = facts.get("ActiveState", "")
    state = f"{SERVICE} is {active} ({facts.get('SubState', '')})"
    restarts = int(facts.get("NRestarts", "0") or 0)
    if facts.get("LoadState") != "loaded":
        yield Finding("service", FAIL, f"{SERVICE} is {facts.get('LoadState')}", f"systemctl status {SERVICE}")
    elif active == "failed":
        yield Finding("service", FAIL, f"{state}: {facts.get('Result', '')}", log)
    elif active == "active" and restarts:
        yield Finding("service", WARN, f"{state}, but was restarted {restarts} times after failures", log)
    elif active == "active":
        yield Finding("service", OK, state)
    elif active in ("activating", "deactivating", "reloading"):
        yield Finding("service", WARN, state, log)
    elif answers:
        yield Finding("service", OK, f"{state}; this daemon was started in another way")
    else:
        yield Finding("service", FAIL, state, "sudo systemctl start audiod")
    if facts.get("UnitFileState") == "disabled":
        yield Finding("service", WARN, f"{SERVICE} is not started at boot", "sudo systemctl enable audiod")
    # Of a service that was never started it is 0, whatever its unit says.
    if active == "active" and facts.get("WatchdogUSec") in ("0", "infinity"):
        found = f"no watchdog: systemd would not notice that {SERVICE} hangs"
        yield Finding("service", WARN, found, "sudo systemctl edit audiod, with WatchdogSec=30s under [Service]")


def http_api(url: str) -> Finding:
    """Whether the HTTP API answers where the daemon says that it does."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        return Finding("http", OK, f"{url} is not looked at from here")
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=_HTTP_S)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return Finding("http", FAIL, f"{url} does not answer: {error}", "journalctl -u audiod -n 50")
    finally:
        connection.close()
    if answer.status == http.client.OK:
        return Finding("http", OK, f"{url} answers and is ready")
    try:
        told = msgspec.json.decode(body, type=dict[str, str])
    except msgspec.DecodeError:
        return Finding("http", FAIL, f"what answers on {url} is not audiod", "audioctl status")
    reason = told.get("reason", "")
    said = f"{url} answers, but is not ready: {told.get('status', '')}" + (f", {reason}" if reason else "")
    fix = "audioctl undrain" if told.get("status") == "draining" else "audioctl status"
    return Finding("http", FAIL if told.get("status") == "failed" else WARN, said, fix)


def state(directory: str) -> Iterator[Finding]:
    """Whose the state directory is, and how much room there is: what can be told without the daemon's eyes."""
    path = Path(directory)
    try:
        status = path.stat()
    except FileNotFoundError:
        yield Finding("state", OK, f"{directory} is not there yet; the daemon makes it when it starts")
    except OSError as error:
        yield Finding("state", WARN, f"{directory}: {error.strerror}", "sudo audioctl doctor")
    else:
        yield _owner(directory, status)
    while True:
        try:
            space = os.statvfs(path)
            break
        except OSError:  # not there, or not for us: what is above it is on the same disk, as a rule
            path = path.parent
    free_bytes = space.f_bavail * space.f_frsize
    verdict = judge_space(free_bytes, space.f_favail if space.f_files else None)
    found = f"{size(free_bytes)} of {size(space.f_blocks * space.f_frsize)} free in {path}"
    yield Finding("disk", verdict, found, "" if verdict is OK else f"sudo du -xhd2 {path} | sort -h | tail")


def _owner(directory: str, status: os.stat_result) -> Finding:
    shown = f"{directory} is {_user(status.st_uid)}'s, mode {stat.S_IMODE(status.st_mode):04o}"
    if not stat.S_ISDIR(status.st_mode):
        return Finding("state", FAIL, f"{directory} is no directory", f"ls -ld {directory}")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        found = f"{shown}: it may be changed by everyone here, and engines run what is in it"
        return Finding("state", FAIL, found, f"sudo chmod o-w {directory}")
    try:
        account = pwd.getpwnam(GROUP)
    except KeyError:
        return Finding("state", OK, shown)
    # Only there does the service's account own it; a checkout's belongs to whoever runs that.
    if directory == STATE_DIR and status.st_uid != account.pw_uid:
        return Finding("state", FAIL, f"{shown}, not {GROUP}'s", f"sudo chown -R {GROUP}: {directory}")
    return Finding("state", OK, shown)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
