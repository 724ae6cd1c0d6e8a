"""`audioctl reload`: asks the daemon to read its configuration again.

A bad one is refused by the daemon and the old one stays; `audioctl config check` looks before.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client, decode
from audioctl.output import Output, clean
from audioproto.control import Outcome, Reload

SUMMARY = "read the configuration again"
EXAMPLES = (
    ("audioctl config check && audioctl reload", "look before you leap"),
    ("audioctl reload", "returns when the new configuration holds; a bad one is refused and the old one stays"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    body = client.call(Reload())
    outcome = decode(body, Outcome)
    if out.json:
        out.document(body)
    else:
        out.line(clean(outcome.message))
    return 0
