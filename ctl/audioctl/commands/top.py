"""`audioctl top`: models, memory, queue and rates, again and again in the same place.

Only shows; rates are differences between two looks at what the daemon counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from audioctl.arguments import interval_s
from audioctl.client import CALL_TIMEOUT_S, Client, decode
from audioctl.output import STATE_COLOURS, Cell, Column, Output, bar, clean, duration, fit, size
from audioctl.screen import REDRAW, Ended, Screen, keys
from audioproto.control import GetStatus, Memory, ModelStatus, Status, Work
from audioproto.errors import DaemonUnreachable
from audioproto.types import Residency

SUMMARY = "watch models, memory, queue and rates, live"
EXAMPLES = (
    ("audioctl top", "a page that keeps itself up to date; q ends it"),
    ("audioctl top --interval 5", "every five seconds"),
    ("audioctl top --once", "one page; rates are those since the daemon was started"),
    ("audioctl --json top | jq '.models[] | {model, rates}'", "a line of JSON each time, for scripts"),
)

COLUMNS = (
    Column("MODEL", least=8),
    Column("STATE"),
    Column("MEMORY", right=True),
    Column("RUN", right=True),
    Column("WAIT", right=True),
    Column("REQ/MIN", right=True),
    Column("WAITED", right=True),
    Column("BUSY", right=True),
    Column("AUDIO", right=True),
)

RATES_OVER_S = 10.0
"""Rates are of the latest so many seconds: of one alone they would jump."""

_PATIENCE_S = 10.0
"""For the daemon's answer, in which keys are not heard."""

_QUIT = ("q", "Q", "\x04")


class Rates(msgspec.Struct, frozen=True):
    """Of one model, over some time."""

    requests_per_s: float
    """That were served to their end."""
    refused_per_s: float
    waited_s: float | None
    """How long those that got the model had waited on average; None where none did."""
    busy: float
    """Requests that were at work, on average."""
    audio_per_s: float
    """Seconds of audio transcribed or spoken in a second."""
    loads_per_min: float


class Look(msgspec.Struct, frozen=True):
    """The daemon's state at a time of the monotonic clock."""

    at: float
    status: Status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="show it once, with rates since the daemon was started")
    parser.add_argument("--interval", metavar="SECONDS", type=interval_s, default=1.0, help="look so often (1)")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    looks = deque([_look(client, CALL_TIMEOUT_S)])
    if arguments.once:
        _show(looks, out)
        return 0
    try:
        with _waiting(out) as wait:
            return _watch(looks, wait, client, out, arguments.interval)
    except Ended as ended:
        return ended.status


def _watch(looks: deque[Look], wait: Callable[[float], str], client: Client, out: Output, interval_s: float) -> int:
    """Until a key says that it is enough."""
    trouble, due = "", looks[-1].at
    while True:
        _show(looks, out, trouble, live=True)
        due = max(due + interval_s, time.monotonic())
        while (remaining_s := due - time.monotonic()) > 0:
            key = wait(remaining_s)
            if key in _QUIT:
                return 0
            if key == REDRAW:
                out.measure()
                _show(looks, out, trouble, live=True)
        try:
            look, trouble = _look(client, _PATIENCE_S), ""
        except DaemonUnreachable as error:
            trouble = f"{error.message}; still trying"  # it may be restarted, which is worth watching
            continue
        if look.status.pid != looks[-1].status.pid:
            looks.clear()  # another daemon counts from the beginning
        looks.append(look)
        while len(looks) > 2 and looks[1].at <= look.at - RATES_OVER_S:
            looks.popleft()


def _look(client: Client, timeout_s: float) -> Look:
    return Look(time.monotonic(), decode(client.call(GetStatus(), timeout_s), Status))


def rates(work: Work, before: Work, seconds: float) -> Rates:
    """What happened between two looks at a model's `work`, so many seconds apart."""
    seconds = max(seconds, 1e-3)
    granted = work.granted - before.granted
    return Rates(
        requests_per_s=(work.served - before.served) / seconds,
        refused_per_s=(work.refused - before.refused) / seconds,
        waited_s=(work.waited_s - before.waited_s) / granted if granted else None,
        busy=(work.worked_s - before.worked_s) / seconds,
        audio_per_s=(work.audio_s - before.audio_s) / seconds,
        loads_per_min=(work.loads - before.loads) * 60 / seconds,
    )


def _show(looks: deque[Look], out: Output, trouble: str = "", *, live: bool = False) -> None:
    first, last = looks[0], looks[-1]
    several = len(looks) > 1
    over_s = last.at - first.at if several else last.status.uptime_s
    before = {model.model: model.work for model in first.status.models} if several else {}
    found = {model.model: rates(model.work, before.get(model.model, Work()), over_s) for model in last.status.models}
    if out.json:
        out.json_line(_document(last.status, found, over_s))
        return
    lines = render(last.status, found, out)
    if trouble:
        lines[0] = out.paint(fit(clean(trouble), out.width), "red")
    told = f"rates over {duration(over_s)}" if several else "rates since the daemon was started"
    lines += ["", out.paint(f"{told}; q ends" if live and out.terminal else told, "dim")]
    if live:
        out.redraw(lines)
    else:
        out.line("\n".join(lines))


def _document(status: Status, found: dict[str, Rates], over_s: float) -> dict[str, object]:
    """The status, with `rates` beside each model's figures."""
    models = [{**msgspec.to_builtins(model), "rates": found[model.model]} for model in status.models]
    return {**msgspec.to_builtins(status), "at": time.time(), "rates_over_s": over_s, "models": models}


def render(status: Status, found: dict[str, Rates], out: Output) -> list[str]:
    """The lines of the page: the daemon, memory, then a row for each model, those that are there first."""
    ready = clean(status.readiness)
    colour = "green" if ready == "ready" else "yellow"
    running = sum(model.leases for model in status.models)
    total = sum(one.requests_per_s for one in found.values()) * 60
    title = (
        f"audiod {clean(status.version)} up {duration(status.uptime_s)}, {ready}; "
        f"{running} running, {status.queue} waiting, {_figure(total)} req/min"
    )
    lines = [fit(title, out.width).replace(ready, out.paint(ready, colour), 1)]
    lines += [_memory(memory, out.width) for memory in status.memory]
    zygotes = [model.host_bytes for model in status.models if model.host_bytes]
    lines.append(f"{'parked':8} {size(sum(zygotes))} of host memory, in zygotes" if zygotes else "")
    order = sorted(status.models, key=lambda model: (model.state is Residency.UNLOADED, model.model))
    lines += ["", *out.table(COLUMNS, [_row(model, found[model.model]) for model in order])]
    lines += [
        fit(f"{clean(model.model)}: a new request would wait for about {duration(model.estimate_s)}", out.width)
        for model in order
        if model.estimate_s is not None
    ]
    return lines


def _row(model: ModelStatus, found: Rates) -> list[str | Cell]:
    present = model.state is not Residency.UNLOADED or model.queue > 0 or found.requests_per_s > 0
    return [
        model.model,
        Cell(model.state, STATE_COLOURS.get(model.state, "yellow")),
        size(model.device_bytes) if model.device_bytes else "-",
        str(model.leases) if present else "-",
        str(model.queue) if present else "-",
        _figure(found.requests_per_s * 60) if present else "-",
        "-" if found.waited_s is None else duration(found.waited_s),
        f"{found.busy:.0%}" if present else "-",
        f"{_figure(found.audio_per_s)}x" if found.audio_per_s else "-",
    ]


def _memory(memory: Memory, width: int) -> str:
    name = f"{clean(memory.device):8}"
    text = f" {size(memory.reserved_bytes)} of {size(memory.budget_bytes)}, {size(memory.available_bytes)} free"
    cells = max(5, min(40, width - len(name) - len(text) - 3))
    return fit(f"{name} {bar(memory.reserved_bytes, memory.budget_bytes, cells)}{text}", width)


def _figure(value: float) -> str:
    """Three figures at most."""
    return f"{value:.0f}" if value >= 99.5 or not value else f"{value:.1f}"


def _waiting(out: Output) -> AbstractContextManager[Callable[[float], str]]:
    """The terminal's keys, or without a terminal a wait that hears none."""
    if out.json or not out.terminal:
        return nullcontext(_sleep)
    return Screen(sys.stdout, keys()).entered()


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""
