"""`audioctl drain`: asks the daemon to admit no new work and to finish what runs.

Stops nothing; the daemon goes on until it is stopped or undrained.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client
from audioctl.output import Output
from audioctl.progress import follow
from audioproto.control import Drain

SUMMARY = "admit no new work and finish what runs"
EXAMPLES = (
    ("audioctl drain --wait && sudo systemctl restart audiod", "restart without failing a request that runs"),
    ("audioctl undrain", "admit work again"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="return when all that ran is finished")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    return follow({"": Drain()}, client, out, wait=arguments.wait)
