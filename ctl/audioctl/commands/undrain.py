"""`audioctl undrain`: asks the daemon to admit work again.

The opposite of drain.py and nothing more.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client, decode
from audioctl.output import Output, clean
from audioproto.control import Outcome, Undrain

SUMMARY = "admit work again after drain"
EXAMPLES = (("audioctl undrain", "take a drained daemon back into service"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    body = client.call(Undrain())
    outcome = decode(body, Outcome)
    if out.json:
        out.document(body)
    else:
        out.line(clean(outcome.message))
    return 0
