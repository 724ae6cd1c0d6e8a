"""`audioctl config check`: has the daemon's program check a configuration file, whether or not a daemon runs.

Knows no key of it: only `audiod check-config` does.
"""

from __future__ import annotations

import argparse
import os

from audioctl import programs
from audioctl.client import Client
from audioctl.output import Output

SUMMARY = "check a configuration file"
EXAMPLES = (
    ("audioctl config check", "the file that the daemon would read"),
    ("audioctl config check ./audiod.toml", "another one, before it is installed"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("check",), help="the only thing to do with it")
    parser.add_argument("file", metavar="FILE", nargs="?", help="default: the one that audiod would read")


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    """Becomes `audiod check-config`, so that its exit status is ours. Raises NotFound."""
    command = ["audiod", "check-config"]
    if arguments.file is not None:
        command.append(arguments.file)
    if out.json:
        command.append("--json")
    os.execv(programs.audiod(), command)  # noqa: S606 - argv, no shell
