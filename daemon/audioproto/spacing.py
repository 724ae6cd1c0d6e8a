"""What stands between two texts that were heard one after the other: a blank, or nothing. Pure."""

from __future__ import annotations

import unicodedata


def glue(before: str, after: str) -> str:
    """What belongs between two texts: a blank, unless the script of one of them has none between words."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return "" if is_unspaced(before[-1]) or is_unspaced(after[0]) else " "


def is_unspaced(character: str) -> bool:
    """Whether the character's script has no blanks between words: Chinese, Japanese, Thai and their neighbours."""
    if character.isascii():
        return False
    if unicodedata.east_asian_width(character) in "WF":
        return not unicodedata.name(character, "").startswith("HANGUL")
    return unicodedata.name(character, "").partition(" ")[0] in ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
