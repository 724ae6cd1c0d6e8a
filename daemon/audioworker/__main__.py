"""Starts a zygote: `python -m audioworker FD`, where FD is the inherited end of a socketpair to the daemon.

Nothing but start-up; the loops are in zygote.py and worker.py.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from audioproto import process
from audioworker.zygote import Zygote


def main() -> int:
    process.die_with_parent(os.getppid())
    process.offer_to_oom_killer()
    # Ctrl-C in a terminal reaches the whole foreground group; only the daemon decides when a zygote ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Zygote(socket.socket(fileno=int(sys.argv[1]))).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
