"""Runs one command: reads the arguments, makes the client and the output, turns an error into a message and a status.

Does no work of any verb; that is commands/<verb>.py.
"""

from __future__ import annotations

import os
import sys

from audioctl import arguments, commands
from audioctl.client import Client
from audioctl.output import Output
from audioproto.control import DEFAULT_SOCKET
from audioproto.errors import AudiodError

INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""

BROKEN_PIPE = 141
"""128 + SIGPIPE: what `audioctl events | head -1` leaves behind, quietly, like any other tool."""


def main() -> int:
    # A name in the daemon's answer must not end the command on a terminal that cannot show it.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    out = Output(sys.stdout, sys.stderr, environment=os.environ, json="--json" in sys.argv[1:])
    try:
        given = arguments.parse(sys.argv[1:])
        out.json = given.json
        client = Client(given.socket or os.environ.get("AUDIOD_SOCKET") or DEFAULT_SOCKET)
        status = commands.module_of(given.verb).run(given, client, out)
        sys.stdout.flush()
    except AudiodError as error:
        out.error(error)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Else the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
