"""Who is at the other end of the control socket, and what they may do. The kernel's word is the only one taken."""

from __future__ import annotations

import grp
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from audioproto.control import Permission

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """Process, user and group ids, from SO_PEERCRED (unix(7))."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    return Peer(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def may(peer: Peer, permission: Permission, operator_group: str) -> bool:
    """Root, the daemon's own user and members of the operator group may operate; whoever could connect may read."""
    if permission is Permission.READ or peer.uid in (0, os.geteuid()):
        return True
    try:
        group = grp.getgrnam(operator_group).gr_gid
    except KeyError:
        return False
    return peer.gid == group or group in _supplementary_groups(peer.pid)


def _supplementary_groups(pid: int) -> list[int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    for line in status.splitlines():
        if line.startswith("Groups:"):
            return [int(group) for group in line.split()[1:]]
    return []
