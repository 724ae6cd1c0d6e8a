"""`audioctl load`: asks the daemon to bring models to ready.

Decides nothing about room; the daemon evicts or refuses.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client
from audioctl.output import Output
from audioctl.progress import add_wait, follow
from audioproto.control import Load

SUMMARY = "bring models onto the device"
EXAMPLES = (
    ("audioctl load whisper-base", "wait until it is ready; a failed model is tried again at once"),
    ("audioctl load --no-wait hibari", "return as soon as the daemon has accepted it"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", help="name of a model, as in `audioctl models`")
    add_wait(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    return follow({model: Load(model) for model in arguments.models}, client, out, wait=arguments.wait)
