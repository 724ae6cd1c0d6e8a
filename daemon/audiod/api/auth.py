"""The keys of the HTTP API: from a file, a credential or the environment; compared in constant time, never logged.

Judges a key; how a request carries one, and which path needs one, is api/access.py's.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from audioproto.errors import ConfigInvalid, Unauthorized

VARIABLE = "AUDIOD_API_KEYS"
"""Keys in the environment, with commas or new lines between them. It is no setting: nothing prints it."""


class Keys:
    """The keys that are accepted, as (name in logs, digest). None at all: everyone is welcome.

    Only digests are kept, so that no dump of the daemon's memory shows a key.
    """

    def __init__(self, digests: Sequence[tuple[str, bytes]] = ()) -> None:
        self._digests = tuple(digests)

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
        return cls._parse(lines, f"{file}, line", "key")

    @classmethod
    def parse_variable(cls, value: str) -> Keys:
        """What AUDIOD_API_KEYS says: `KEY` or `NAME KEY`, several with commas between them. Raises ConfigInvalid."""
        return cls._parse(value.replace(",", "\n").splitlines(), f"{VARIABLE}, entry", "environment")

    @classmethod
    def _parse(cls, lines: Sequence[str], where: str, unnamed: str) -> Keys:
        keys: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            name = words[0] if len(words) == 2 else f"{unnamed}-{number}"
            if len(words) > 2 or name in keys:
                raise ConfigInvalid(f"{where} {number}: write KEY, or NAME KEY with a name of its own")
            keys[name] = words[-1]
        return cls([(name, digest_of(key)) for name, key in keys.items()])

    def __add__(self, other: Keys) -> Keys:
        return Keys(self._digests + other._digests)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, key: str) -> str:
        """What logs call `key`, "" where it is none.

        Every key is compared, whatever the first ones say, so that the time taken tells nothing.
        """
        digest = digest_of(key)
        matches = [name for name, known in self._digests if hmac.compare_digest(known, digest)]
        return matches[0] if matches else ""


def refusal() -> Unauthorized:
    """What is said to those who have no key, or a wrong one."""
    return Unauthorized("the API key is missing or wrong; send it as `Authorization: Bearer KEY`")


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
