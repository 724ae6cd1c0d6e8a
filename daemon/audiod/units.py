"""Sizes, times, devices and web addresses as people write them in TOML: `"350MiB"`, `"1h30m"`, `"never"`, `"cuda:0"`.

Only parses and prints; knows nothing of what the values are for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec

_SIZES = {
    "B": 1,
    "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
"""IEC 80000-13. A bare `M` is left out on purpose: systemd reads it as 2^20, disk makers as 10^6."""

_TIMES_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)
_TIME_TERM = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.ASCII)
_PLAIN_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


DeviceName = Annotated[str, msgspec.Meta(pattern=r"^(auto|cpu|cuda(:(0|[1-9][0-9]?))?)\Z")]
"""Where models are loaded; `cuda` is `cuda:0`. Which devices there are is devices.py's to say."""


class ByteSize(int):
    """A number of bytes, never negative. msgspec encodes no subclass of int: put `int(size)` into a wire type."""

    @classmethod
    def parse(cls, value: str | int) -> ByteSize:
        """Read `"3.5GiB"`, `"500MB"`, `"4096"` or a whole number of bytes. Raises ValueError."""
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f'{value!r} is no size; write it like "350MiB"')
        if isinstance(value, int):
            if value < 0:
                raise ValueError(f"a size cannot be {value}")
            return cls(value)
        match = _SIZE.fullmatch(value.strip())
        unit = match[2] or "B" if match else ""
        if match is None or unit not in _SIZES:
            raise ValueError(f'{value!r} is no size; write it like "350MiB" or "3.5GB" ({", ".join(_SIZES)})')
        return cls(round(float(match[1]) * _SIZES[unit]) if "." in match[1] else int(match[1]) * _SIZES[unit])

    def __str__(self) -> str:
        """For people, to three figures: `190 MiB`. Does not parse back to the same number."""
        size, unit = float(self), "B"
        for larger in ("KiB", "MiB", "GiB", "TiB"):
            if size < 999.5:
                break
            size, unit = size / 1024, larger
        return f"{size:.0f} {unit}" if size >= 99.5 else f"{size:.3g} {unit}"


class Duration(float):
    """Seconds; Duration.NEVER (-1) means that the time never comes."""

    NEVER: Duration

    @classmethod
    def parse(cls, value: str | float) -> Duration:
        """Read `"5m"`, `"1h30m"`, `"250ms"`, `"never"`, or seconds as a number, -1 for never. Raises ValueError."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f'{value!r} is no time; write it like "5m"')
        if isinstance(value, int | float):
            if value == cls.NEVER:
                return cls.NEVER
            if not math.isfinite(value) or value < 0:
                raise ValueError(f'a time cannot be {value}; "never" is -1')
            return cls(value)
        text = value.strip()
        if text in ("never", "-1"):
            return cls.NEVER
        if _PLAIN_NUMBER.fullmatch(text):
            return cls(float(text))
        total_s, position = 0.0, 0
        while match := _TIME_TERM.match(text, position):
            if match[2] not in _TIMES_S:
                break
            total_s += float(match[1]) * _TIMES_S[match[2]]
            position = match.end()
        if not text or position != len(text):
            raise ValueError(f'{value!r} is no time; write it like "90s", "1h30m" or "never" ({", ".join(_TIMES_S)})')
        return cls(total_s)

    def __str__(self) -> str:
        """For people and for TOML: `1h30m`, `2.5s`, `never`."""
        if self == Duration.NEVER:
            return "never"
        words, rest_s = [], float(self)
        for unit in ("d", "h", "m"):
            count = int(rest_s // _TIMES_S[unit])
            if count:
                words.append(f"{count}{unit}")
                rest_s -= count * _TIMES_S[unit]
        if rest_s or not words:
            words.append(f"{rest_s:.6f}".rstrip("0").rstrip(".") + "s")
        return "".join(words)


Duration.NEVER = Duration(-1)


class Addresses(tuple[str, ...]):
    """Web addresses, in the order in which they are tried."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: str | Iterable[str]) -> Addresses:
        """Read a list of URLs, or one, or several with blanks between them. Raises ValueError."""
        words = value.split() if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{value!r} is no list of web addresses")
        for word in words:
            if not word.startswith(("https://", "http://")):
                raise ValueError(f'{word!r} is no web address; write it like "https://mirror.example"')
        return cls(words)

    def __str__(self) -> str:
        return " ".join(self)


def decode(wanted: type[Any], value: Any) -> Any:
    """msgspec's `dec_hook` for these types."""
    if wanted is ByteSize or wanted is Duration or wanted is Addresses:
        return wanted.parse(value)
    raise NotImplementedError(f"no decoder for {wanted!r}")
