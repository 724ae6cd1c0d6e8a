"""Ephemeral keys: given out for a browser to open Realtime sessions with, and forgotten minutes later.

In memory only, and only their digests; what may be opened with one is api/access.py's.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from audiod.api.auth import digest_of
from audiod.api.realtime.sessions import Session
from audioproto.errors import QueueFull

_LIMIT = 1000
"""Keys at a time. Each of them is compared with each key that is sent: 0.3 ms."""


@dataclass(frozen=True, slots=True)
class _Secret:
    digest: bytes
    expires_at: int
    name: str
    session: Session


class ClientSecrets:
    """The keys that are valid now. `clock` gives Unix time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secrets: list[_Secret] = []

    def create(self, session: Session, lasts_s: int, owner: str) -> tuple[str, int]:
        """A new key for such sessions, and the Unix time it expires at. `owner` is the name of the key it was asked for
        with. Raises QueueFull where too many are valid.
        """
        now = self._clock()
        self._secrets = [secret for secret in self._secrets if secret.expires_at > now]
        if len(self._secrets) >= _LIMIT:
            wait_s = min(secret.expires_at for secret in self._secrets) - now
            raise QueueFull(f"{_LIMIT} client secrets are valid; no more are given out", retry_after_s=wait_s)
        value = f"ek_{secrets.token_hex(24)}"
        expires_at = int(now) + lasts_s
        name = f"{owner}-ephemeral" if owner else "ephemeral"
        self._secrets.append(_Secret(digest_of(value), expires_at, name, session))
        return value, expires_at

    def name_of(self, key: str) -> str:
        """What logs call `key`; "" where it is none, or has expired."""
        secret = self._find(key)
        return secret.name if secret else ""

    def session_of(self, key: str) -> Session | None:
        """What a session that is opened with `key` is set to at first."""
        secret = self._find(key)
        return secret.session if secret else None

    def _find(self, key: str) -> _Secret | None:
        """Every key is compared, so that the time taken tells nothing."""
        digest, now = digest_of(key), self._clock()
        matches = [secret for secret in self._secrets if hmac.compare_digest(secret.digest, digest)]
        return next((secret for secret in matches if secret.expires_at > now), None)
