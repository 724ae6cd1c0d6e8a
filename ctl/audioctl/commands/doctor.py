"""`audioctl doctor`: looks at the host and has the daemon look at itself, and shows each finding with its fix.

Mends nothing. What it looks at from this side is host.py's matter; what the daemon looks at is the daemon's.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from audioctl import host
from audioctl.client import Client, decode
from audioctl.output import Output, clean
from audioproto import PROTOCOL_VERSION
from audioproto.control import Diagnosis, GetDoctor, GetStatus, Status
from audioproto.diagnosis import Finding, Verdict
from audioproto.errors import AudiodError, DaemonUnreachable, NotFound

SUMMARY = "check the host and the daemon, and say what to type where something is wrong"
EXAMPLES = (
    ("audioctl doctor", "every check, a line each; the exit status is 1 if any failed"),
    ("audioctl doctor --network", "also ask whether pip's index, npm's registry and the model hub answer"),
    ("audioctl doctor --json | jq '.findings[] | select(.verdict != \"ok\")'", "for scripts"),
)

COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}

_ANSWER_S = 5.0
"""For a status, which takes milliseconds: a daemon that needs longer hangs."""

_SILENCE_S = 600.0
"""Between two findings, which come in order: several slow imports, and somebody else's examination before ours."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", action="store_true", help="also check that mirrors and indexes can be reached")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    found: list[Finding] = []
    for finding in examine(client, network=arguments.network):
        found.append(finding)
        if not out.json:
            out.line("\n".join(render(finding, out)))
    counts = Counter(finding.verdict for finding in found)
    if out.json:
        out.document({"findings": found, **{verdict: counts[verdict] for verdict in Verdict}})
    else:
        out.line(f"\n{counts[Verdict.OK]} ok, {counts[Verdict.WARN]} warn, {counts[Verdict.FAIL]} fail")
    return 1 if counts[Verdict.FAIL] else 0


def examine(client: Client, *, network: bool) -> Iterator[Finding]:
    """Every finding as it comes: first whether there is a daemon, then this side's, then the daemon's."""
    status = None
    try:
        status = decode(client.call(GetStatus(), _ANSWER_S), Status)
        yield _greet(status, client)
    except AudiodError as error:
        yield Finding("daemon", Verdict.FAIL, error.message, error.hint)
    settings, config = host.settings(status.config or None if status else None)
    group = settings.control.group
    if status is None:
        yield config
    if os.path.lexists(client.path):
        yield host.control_socket(client.path, group)
    elif settings.control.socket not in ("", client.path):
        found = f"the configuration's socket is {settings.control.socket}, and not {client.path}"
        yield Finding("socket", Verdict.WARN, found, f"audioctl --socket {settings.control.socket} doctor")
    yield host.you(group)
    yield from host.service(answers=status is not None)
    if status is None:
        yield from host.state(settings.storage.state_dir)
        return
    for url in status.http:
        yield host.http_api(url)
    yield from _daemons_own(client, network=network)


def render(finding: Finding, out: Output) -> list[str]:
    """A line, and below it what to type."""
    verdict = out.paint(f"{finding.verdict:<4}", COLOURS[finding.verdict])
    lines = [f"{verdict}  {clean(finding.check)}: {clean(finding.found)}"]
    return [*lines, f"        try: {clean(finding.fix)}"] if finding.fix else lines


def _greet(status: Status, client: Client) -> Finding:
    said = f"audiod {status.version} (pid {status.pid}) answers on {client.path}"
    if status.protocol != PROTOCOL_VERSION:
        older = (
            "systemctl restart audiod" if status.protocol < PROTOCOL_VERSION else "apt install --only-upgrade audiod"
        )
        found = f"{said}, but speaks protocol {status.protocol} and audioctl {PROTOCOL_VERSION}"
        return Finding("daemon", Verdict.WARN, found, f"sudo {older}")
    return Finding("daemon", Verdict.OK, said)


def _daemons_own(client: Client, *, network: bool) -> Iterator[Finding]:
    """What the daemon finds. That it breaks off is a finding too."""
    try:
        with closing(client.stream(GetDoctor(network=network), _SILENCE_S)) as lines:
            for line in lines:
                diagnosis = decode(line, Diagnosis)
                yield from diagnosis.findings
                if diagnosis.done:
                    return
        raise DaemonUnreachable("the daemon ended while it was examined", hint="journalctl -u audiod -n 50")
    except NotFound as error:  # older than this audioctl
        yield Finding("daemon", Verdict.WARN, error.message, "sudo systemctl restart audiod")
    except AudiodError as error:
        yield Finding("daemon", Verdict.FAIL, error.message, error.hint)
