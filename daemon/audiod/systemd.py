"""What the daemon and systemd say to each other: sockets handed over, readiness, status, watchdog, more time to stop.

Speaks sd_listen_fds(3) and sd_notify(3) and decides nothing; without systemd it does nothing and costs nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

logger = logging.getLogger(__name__)

HTTP, CONTROL = "http", "control"
"""Names of the sockets that the socket units hand over (FileDescriptorName=). Their order says nothing: it differs
between systemd's versions."""

_FIRST_DESCRIPTOR = 3


def inherited_sockets(environment: MutableMapping[str, str]) -> dict[str, list[socket.socket]]:
    """The listening sockets that were handed over, by name; their variables are taken out of `environment`.

    Variables that are meant for another process are a parent's leak and are dropped. What is no listening socket, or
    has a name that is not ours, is closed, so that no child inherits it.
    """
    meant_for = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    environment.pop("LISTEN_PIDFDID", None)
    found: dict[str, list[socket.socket]] = {}
    if meant_for != str(os.getpid()) or not count.isdecimal():
        return found
    for index in range(int(count)):
        descriptor = _FIRST_DESCRIPTOR + index
        name = names[index] if index < len(names) else ""
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            logger.warning("systemd announced descriptor %d, which is not open", descriptor)
            continue
        if name not in (HTTP, CONTROL) or not _listens(descriptor):
            logger.warning("descriptor %d, called %r, is no socket of ours and is closed", descriptor, name)
            os.close(descriptor)
            continue
        found.setdefault(name, []).append(socket.socket(fileno=descriptor))
    return found


def _listens(descriptor: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


class Notifier:
    """Tells the service manager how the daemon is. Made by `from_environment`; silent where nobody listens."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s
        """The daemon is taken for hung when `watchdog` was not called for so long; 0 where nobody watches."""
        self._status = ""
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Notifier:
        """As systemd set it up; its variables are taken out of `environment`, so that no child speaks for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watchdog_s = int(microseconds) / 1e6 if watched and microseconds.isdecimal() else 0.0
        return cls(address, watchdog_s)

    @property
    def listens(self) -> bool:
        """Whether there is anyone to tell."""
        return self._socket is not None

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same again is not sent again."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so many seconds from now before the stop under way is given up."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            # A manager that is being replaced, or has a full queue: the next message gets through or nobody is there.
            logger.debug("systemd did not take %r: %s", message, error)
