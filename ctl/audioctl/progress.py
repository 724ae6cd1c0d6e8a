"""Work that takes time: sends requests one after another and shows the daemon's progress lines.

One failure does not stop the rest. The work belongs to the daemon: hanging up early leaves it running.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing

import msgspec

from audioctl.client import Client, decode
from audioctl.output import Output, clean, naming
from audioproto.control import Progress, Request
from audioproto.errors import AudiodError, DaemonUnreachable, from_body


def follow(requests: Mapping[str, Request], client: Client, out: Output, *, wait: bool) -> int:
    """Send each request; its key is the model it is about, or empty. Returns the first failure's exit status, or 0.

    Without `wait` the first progress line of each, which says that it was accepted, is also the last one shown.
    """
    status = 0
    for subject, request in requests.items():
        try:
            _follow_one(subject, request, client, out, wait=wait, several=len(requests) > 1)
        except AudiodError as error:
            out.error(error, subject)
            status = status or error.exit_status
    return status


def _follow_one(subject: str, request: Request, client: Client, out: Output, *, wait: bool, several: bool) -> None:
    with closing(client.stream(request)) as lines:
        for line in lines:
            progress = decode(line, Progress)
            if out.json:
                fields = decode(line, dict[str, msgspec.Raw])
                out.json_line({"model": subject, **fields} if subject else fields)
            if progress.error is not None:
                raise from_body(progress.error)
            if not out.json:
                out.line(clean(naming(subject if several else "", progress.message)))
            if progress.done or not wait:
                return
    raise DaemonUnreachable("the daemon went away before it was done", hint="journalctl -u audiod -n 50")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """The option that load, park and unload share."""
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="return when it is done, or with --no-wait when it is accepted; the daemon goes on",
    )
