"""What a process of ours asks of the kernel: die with its parent, carry a name, gain and tell nothing.

Linux only, through prctl(2) and /proc; standard library only; knows neither engines, media nor messages.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None, use_errno=True)
_libc.getenv.restype = ctypes.c_void_p


def take_variable(name: str) -> str:
    """The value of an environment variable, "" where there is none; afterwards no child has it.

    /proc/PID/environ shows the memory that a process was started with, whatever has become of its variables, to all
    processes of the same user, as engines are: so the value is overwritten there.
    """
    if name not in os.environ:
        return ""
    if place := _libc.getenv(name.encode()):
        ctypes.memset(place, ord("*"), len(ctypes.string_at(place)))
    return os.environ.pop(name)


def die_with_parent(parent: int) -> None:
    """Be killed when `parent` ends, even by SIGKILL; exits at once if it is already gone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def offer_to_oom_killer() -> None:
    """Be the one that is killed when memory runs out, before the daemon and before what else is on the host."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123  the lightest way
            score.write("500")
    except OSError:
        pass  # another score was forced on us, and may only be raised


def set_name(name: str) -> None:
    """The name that `ps -o comm` and `top` show; the kernel keeps 15 bytes."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def forbid_new_privileges() -> None:
    """From here on no set-uid program can raise this process's rights, nor those of its children."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
