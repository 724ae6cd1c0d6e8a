"""`audioctl status`: the models, the memory they hold, and what went wrong with those that failed.

Only shows; every number is the daemon's.
"""

from __future__ import annotations

import argparse
import time

from audioctl.arguments import interval_s
from audioctl.client import Client, decode
from audioctl.output import STATE_COLOURS, Cell, Column, Output, bar, clean, duration, size
from audioproto.control import GetStatus, Memory, ModelStatus, Status
from audioproto.errors import Unavailable
from audioproto.types import Residency

SUMMARY = "show models, memory and what failed"
EXAMPLES = (
    ("audioctl status", "one look"),
    ("audioctl status --ready", "is new work welcome? For health checks and scripts: the exit status says it"),
    ("audioctl status --watch", "keep looking, every second, until Ctrl-C"),
    ("audioctl --json status | jq '.models[] | select(.state == \"failed\")'", "for scripts"),
)

COLUMNS = (
    Column("MODEL", least=8),
    Column("ENGINE", least=6),
    Column("STATE"),
    Column("MEMORY", right=True),
    Column("PID", right=True),
    Column("LEASES", right=True),
    Column("QUEUE", right=True),
    Column("IDLE", right=True),
    Column("EXPIRES", right=True),
)

LOG_LINES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--ready", action="store_true", help="show only whether new work is welcome; fail where it is not")
    how.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        type=interval_s,
        const=1.0,
        help="show it again every second, or so many seconds, until Ctrl-C",
    )


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    while True:
        body = client.call(GetStatus())
        status = decode(body, Status)
        if arguments.ready:
            return _say_readiness(status, out)
        if arguments.watch is None:
            if out.json:
                out.document(body)
            else:
                out.line("\n".join(render(status, out)))
            return 0
        if out.json:
            out.json_line(body)
        else:
            out.redraw(render(status, out))
        time.sleep(arguments.watch)


def _say_readiness(status: Status, out: Output) -> int:
    """Raises Unavailable with the daemon's reason where it is not ready."""
    if status.readiness != "ready":
        raise Unavailable(f"{status.readiness}: {status.unready_reason}", hint="audioctl status")
    if out.json:
        out.document({"readiness": status.readiness})
    else:
        out.line(status.readiness)
    return 0


def render(status: Status, out: Output) -> list[str]:
    """The lines of the whole page."""
    lines = out.table(COLUMNS, [_row(model) for model in status.models])
    lines.append("")
    for memory in status.memory:
        lines += _memory(memory)
    zygotes = [model.host_bytes for model in status.models if model.host_bytes]
    if zygotes:
        lines.append(f"{'host':8} {size(sum(zygotes))} of host memory held by {_count(len(zygotes), 'zygote')}")
    lines.append(f"{'http':8} {clean(' '.join(status.http)) or 'not served'}")
    facts = [status.version, f"pid {status.pid}", f"up {duration(status.uptime_s)}"]
    if status.queue:
        facts.append(f"{_count(status.queue, 'request')} waiting")
    facts.append(clean(status.config) or "no configuration file")
    lines.append(f"{'audiod':8} {', '.join(facts)}")
    lines += [
        f"{clean(model.model)}: {_count(model.queue, 'request')} waiting; a new one would wait for about "
        f"{duration(model.estimate_s)}"
        for model in status.models
        if model.estimate_s is not None
    ]
    lines += [
        f"{clean(model.model)} is staged: {size(model.needs.staged_bytes)} of {clean(model.device)} are set aside for "
        "what it needs there at a time"
        for model in status.models
        if model.needs.staged_bytes and model.device_bytes
    ]
    if status.draining:
        lines.append(out.paint("draining: no new work is admitted; `audioctl undrain` ends it", "yellow"))
    for model in status.models:
        if model.state is Residency.FAILED:
            lines += _failure(model, out)
    return lines


def _row(model: ModelStatus) -> list[str | Cell]:
    present = model.state is not Residency.UNLOADED
    pid = model.worker_pid or model.zygote_pid
    return [
        model.model,
        model.engine,
        Cell(model.state, STATE_COLOURS.get(model.state, "yellow")),
        size(model.device_bytes) if model.device_bytes else "-",
        str(pid) if pid else "-",
        str(model.leases) if present else "-",
        str(model.queue) if present or model.queue else "-",
        "-" if model.idle_s is None else duration(model.idle_s),
        "pinned" if model.pinned else "-" if model.expires_s is None else duration(model.expires_s),
    ]


def _memory(memory: Memory) -> list[str]:
    indent = " " * 9
    lines = [
        f"{clean(memory.device):8} {bar(memory.reserved_bytes, memory.budget_bytes)} "
        f"{size(memory.reserved_bytes)} of {size(memory.budget_bytes)} budget used",
        f"{indent}{clean(memory.name)}: {size(memory.available_bytes)} of {size(memory.total_bytes)} free",
    ]
    if memory.others_bytes:
        lines.append(f"{indent}{size(memory.others_bytes)} held by other programs")
    return lines


def _failure(model: ModelStatus, out: Output) -> list[str]:
    name = clean(model.model)
    lines = ["", out.paint(f"{name} failed: {clean(model.reason) or 'no reason given'}", "red")]
    lines += [f"  | {clean(line)}" for line in model.log[-LOG_LINES:]]
    lines.append(f"  try: audioctl load {name}")
    return lines


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
