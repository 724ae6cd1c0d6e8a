"""`audioctl version`: of this program and of the daemon, and whether the two understand each other.

`audioctl --version` needs no daemon.
"""

from __future__ import annotations

import argparse

from audioctl.client import Client, decode
from audioctl.output import Output, clean
from audioproto import PROTOCOL_VERSION, __version__
from audioproto.control import GetVersion, Version

SUMMARY = "show the versions of audioctl and of the daemon"
EXAMPLES = (("audioctl version", "also warns where the two speak different protocols"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(arguments: argparse.Namespace, client: Client, out: Output) -> int:
    own = Version(__version__, PROTOCOL_VERSION)
    if not out.json:
        out.line(f"audioctl {own.version} (protocol {own.protocol})")
    daemon = decode(client.call(GetVersion()), Version)
    if out.json:
        out.document({"audioctl": own, "audiod": daemon})
    else:
        out.line(f"audiod   {clean(daemon.version)} (protocol {daemon.protocol})")
    if daemon.protocol != own.protocol:
        out.note("audioctl: warning: the two speak different protocols")
        out.note("  try: systemctl restart audiod" if daemon.protocol < own.protocol else "  try: upgrade audioctl")
    return 0
