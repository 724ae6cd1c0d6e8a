"""What kind of character this is: its width, whether it is written without spaces, where it may not stand on a line.

Knows no words and no times.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

IDEOGRAPHIC_SPACE = "\u3000"

_NO_BREAK_SPACES = "\u00a0\u2007\u202f"
_JOINER = "\u200d"
_GLUE = _NO_BREAK_SPACES + _JOINER + "\u2060"

_NO_TEXT = ("Cc", "Cs", "Cn")
"""Control characters, surrogates, and what is no character."""

_WITHOUT_SPACES = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3041-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)
"""Han, kana and Bopomofo (Unicode 16, Scripts.txt): a line may break between any two of them."""

_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc]")

_NOT_FIRST = frozenset(
    "、。，．：；？！,.:;?!･・｡､‼⁇⁈⁉…‥ー―—–-〜～~゠々〻ゝゞヽヾ゛゜%％‰℃°′″'\"＇＂/／"
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿｧｨｩｪｫｬｭｮｯｰﾞﾟ"
)
"""Besides closing brackets. W3C, Requirements for Japanese Text Layout, appendix A: classes 2 to 11 and 13."""

_NOT_LAST = frozenset("$€£¥＄￡￥￦#＃@＠№'\"＇＂/／\\")
"""Besides opening brackets. The same, classes 1 and 12; a straight quotation mark may be either."""


def readable(text: str) -> str:
    """`text` without what is no character, and with each stretch of white space as one space.

    Spaces that forbid a break stay; an ideographic space wins over others beside it.
    """
    kept: list[str] = []
    for character in text:
        if is_space(character):
            if kept and is_space(kept[-1]):
                kept[-1] = max(kept[-1], IDEOGRAPHIC_SPACE if character == IDEOGRAPHIC_SPACE else " ")
            else:
                kept.append(IDEOGRAPHIC_SPACE if character == IDEOGRAPHIC_SPACE else " ")
        elif character != "\ufeff" and unicodedata.category(character) not in _NO_TEXT:
            kept.append(character)
    return "".join(kept)


def is_space(character: str) -> bool:
    """Whether a line may break here, and the character then goes."""
    return character.isspace() and character not in _NO_BREAK_SPACES


def columns(text: str) -> int:
    """Width in half-width columns: two for wide and fullwidth characters (Unicode annex 11), none for marks."""
    return len(text) if text.isascii() else sum(map(_columns, text))


@lru_cache(4096)
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@lru_cache(4096)
def is_cjk(character: str) -> bool:
    """Whether lines and reading speed are counted as for Chinese, Japanese and Korean."""
    return bool(_WITHOUT_SPACES.match(character) or _HANGUL.match(character)) or _is_cjk_punctuation(character)


@lru_cache(4096)
def _breaks_beside(character: str) -> bool:
    return bool(_WITHOUT_SPACES.match(character)) or _is_cjk_punctuation(character)


def _is_cjk_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] == "P" and unicodedata.east_asian_width(character) in "WF"


def is_hiragana(character: str) -> bool:
    return "\u3041" <= character <= "\u309f"


def is_katakana(character: str) -> bool:
    return "\u30a0" <= character <= "\u30ff" or "\uff66" <= character <= "\uff9f"


def is_opening(character: str) -> bool:
    """Whether it belongs to what comes after it."""
    return unicodedata.category(character) in ("Ps", "Pi")


def may_break(before: str, after: str) -> bool:
    """Whether a line may end between two neighbours that no space parts."""
    return (
        (_breaks_beside(before) or _breaks_beside(after))
        and before not in _NOT_LAST
        and after not in _NOT_FIRST
        and not is_opening(before)
        and unicodedata.category(after) not in ("Pe", "Pf")
        and before not in _GLUE
        and after not in _GLUE
        and not continues(before, after)
    )


def continues(before: str, after: str) -> bool:
    """Whether the two may be one character to a reader: letters with marks, emoji of several parts, flags.

    A rough form of Unicode annex 29 that takes a row of flags for one.
    """
    return (
        before == _JOINER
        or unicodedata.category(after) in ("Mn", "Mc", "Me", "Cf")
        or "\U0001f3fb" <= after <= "\U0001f3ff"
        or ("\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff")
    )
