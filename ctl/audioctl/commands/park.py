"""`audioctl park`: asks the daemon to take models off the device and keep their weights in host memory.

Ends no request; the daemon waits for the leases.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client
from audioctl.output import Output
from audioctl.progress import add_wait, follow
from audioproto.control import Park

SUMMARY = "take models off the device, weights kept in host memory"
EXAMPLES = (
    ("audioctl park whisper-base", "free its device memory once its requests are done; loading again is quick"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="+", help="name of a model, as in `audioctl models`")
    add_wait(parser)


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    return follow({model: Park(model) for model in arguments.models}, client, out, wait=arguments.wait)
