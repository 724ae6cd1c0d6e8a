"""`audioctl unload`: asks the daemon to end models' processes, so that they hold no memory anywhere.

Ends a running request only with --force.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client
from audioctl.output import Output
from audioctl.progress import add_wait, follow
from audioproto.control import Unload

SUMMARY = "end models' processes and free all their memory"
EXAMPLES = (
    ("audioctl unload hibari", "once its requests are done"),
    ("audioctl unload --force hibari", "now; its running requests fail"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", help="name of a model, as in `audioctl models`")
    parser.add_argument("--force", action="store_true", help="do not wait for running requests; they fail")
    add_wait(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    requests = {model: Unload(model, force=arguments.force) for model in arguments.models}
    return follow(requests, client, out, wait=arguments.wait)
