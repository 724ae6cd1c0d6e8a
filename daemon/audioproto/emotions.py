"""Emotions as people write them in one line: `happy`, or `happy 0.6, calm 0.2`.

Pure. What a model makes of them is its engine's matter.
"""

from __future__ import annotations

import re

from audioproto.errors import BadRequest
from audioproto.types import EMOTIONS

_ONE = re.compile(r"\s{0,9}([A-Za-z]{1,20})(?:\s{0,9}[:=]?\s{0,9}([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}))?\s{0,9}")


def read(text: str) -> dict[str, float] | None:
    """The strengths in `text` by the names of EMOTIONS, 1 where none is given; None where it says anything else.

    Raises BadRequest for a strength above 1.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        one = _ONE.fullmatch(part)
        if one is None or (name := one[1].lower()) not in EMOTIONS or name in found:
            return None
        found[name] = float(one[2] or 1)
    for name, strength in found.items():
        if strength > 1:
            raise BadRequest(f"{name} is {strength:g}; an emotion is from 0 to 1")
    return found
