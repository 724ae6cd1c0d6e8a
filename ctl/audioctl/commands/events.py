"""`audioctl events`: what happens in the daemon, as it happens.

Shows events from now on; what was before is in the journal.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing

from audioctl.client import Client, decode
from audioctl.output import Output, clean
from audioproto.control import Event, GetModels, ModelList, WatchEvents
from audioproto.errors import DaemonUnreachable, ModelNotFound

SUMMARY = "follow what happens, live"
EXAMPLES = (
    ("audioctl events", "all of it, until Ctrl-C"),
    ("audioctl events --model whisper-base", "one model's comings and goings"),
    ("audioctl --json events | jq -r 'select(.kind == \"worker_died\") | .model'", "for scripts"),
)

COLOURS = {"worker_died": "red", "evicted": "yellow", "drain": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="MODEL",
        dest="models",
        action="append",
        help="only events of this model, by name or alias; may be repeated",
    )


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    wanted = _resolve(arguments.models, client) if arguments.models else None
    with closing(client.stream(WatchEvents())) as lines:
        for line in lines:
            event = decode(line, Event)
            if wanted is not None and event.model not in wanted:
                continue
            if out.json:
                out.json_line(line)
            else:
                out.line(render(event, out))
    raise DaemonUnreachable("the daemon ended the stream of events", hint="systemctl status audiod")


def render(event: Event, out: Output) -> str:
    """One line, in local time."""
    clock = out.paint(time.strftime("%H:%M:%S", time.localtime(event.at)), "dim")
    change = f" {clean(event.previous)} -> {clean(event.state)}" if event.state and event.previous else ""
    colour = "red" if event.state == "failed" else COLOURS.get(event.kind, "")
    kind = out.paint(f"{clean(event.kind):<11}", colour)
    model = f" {clean(event.model)}" if event.model else ""
    message = f": {clean(event.message)}" if model or change else f" {clean(event.message)}"
    return f"{clock} {kind}{model}{change}{message if event.message else ''}"


def _resolve(names: list[str], client: Client) -> set[str]:
    """Models behind names and aliases: events carry the model's own name, and a mistyped one would wait for ever."""
    models = decode(client.call(GetModels()), ModelList).models
    found = set()
    for name in names:
        named = {model.model for model in models if name == model.model or name in model.aliases}
        if not named:
            raise ModelNotFound(f"there is no model {name!r}", hint="audioctl models")
        found |= named
    return found
