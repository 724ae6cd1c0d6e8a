"""Who may use the HTTP API: keys as bearer tokens, compared in constant time, never logged.

Reads a file of keys and judges a header; which paths need a key is api/app.py's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from audioproto.errors import ConfigInvalid, Unauthorized


class Keys:
    """The keys that are accepted, by the names they have in logs. None at all: everyone is welcome.

    Only digests are kept, so that no dump of the daemon's memory shows a key.
    """

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        self._digests = {name: _digest(key) for name, key in (keys or {}).items()}

    @classmethod
    def read(cls, file: Path) -> Keys:
        """A key a line, with a name before it if wanted: `KEY` or `NAME KEY`; # begins a comment. Reads the disk.

        Raises ConfigInvalid naming the line, never its content.
        """
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigInvalid(f"cannot read the API keys in {file}: {reason}", hint=f"ls -l {file}") from error
        keys: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            name = words[0] if len(words) == 2 else f"key-{number}"
            if len(words) > 2 or name in keys:
                raise ConfigInvalid(f"{file}, line {number}: write KEY, or NAME KEY with a name of its own")
            keys[name] = words[-1]
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: str) -> str:
        """The name of the key in an Authorization header, "" where none is needed. Raises Unauthorized.

        Every key is compared, whatever the first ones say, so that the time taken tells nothing.
        """
        if not self._digests:
            return ""
        scheme, _, given = authorization.partition(" ")
        digest = _digest(given.strip())
        matches = [name for name, known in self._digests.items() if hmac.compare_digest(known, digest)]
        if scheme.lower() != "bearer" or not matches:
            raise Unauthorized(
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                hint="the keys are in /etc/audiod/api-keys on the server",
            )
        return matches[0]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
