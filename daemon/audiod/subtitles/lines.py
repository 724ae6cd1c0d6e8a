"""Lines of a subtitle: what is never broken, how good a place for a break is, and one or two lines out of it.

Knows the times of what it cuts only to hand them on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from audiod.subtitles.characters import columns, continues, is_cjk, is_hiragana, is_katakana, is_space, may_break
from audiod.subtitles.timing import CLAUSE_END, SENTENCE_END, Timed

LINES = 2
"""Most lines of a cue (Netflix TTSG, general requirements, 5)."""

GOOD, CLAUSE, SEGMENT, LIKELY, PLAIN, BOUND, INSIDE_WORD = 0.0, 2.0, 3.0, 5.5, 8.0, 11.0, 40.0
"""How bad it is to break there: after a sentence, after a clause, where the engine ended a segment, before a
conjunction or a preposition (the same, 5), anywhere that is allowed, after a short word or inside what the engine takes
for a word (not between an article and its noun), and inside a word, which only one too long for a line has to bear."""

_CLOSING = "\"'”’»›)]}）】」』》〉］｝"

_TITLES = frozenset(("mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs."))
_PARTICLES = frozenset("的了着们吗呢吧啊嘛")
"""Of Chinese: they belong to what stands before them, and end it."""
_HONORIFICS = frozenset("おご")
"""Of Japanese: they belong to what stands behind them."""

_ENGLISH = (
    "and or but nor so because since although though while when where which who whose that whether if unless until "
    "of in on at by for from with without into onto over under about between through during before after against "
    "among amidst to"
)
_BEGINNERS = frozenset(_ENGLISH.split())
"""Conjunctions and prepositions."""

_SHORT_WORD = 3
"""Letters of what is likely an article, a preposition or an auxiliary, in any language with spaces."""

_UNEVEN = 6.0
"""How bad it is to have one line a whole line longer than the other."""

_TOP_HEAVY = 0.5
"""How much worse than the other way round it is if that is the first one."""


class Unit(NamedTuple):
    """What stays together: a word with its punctuation, or one CJK character with its own.

    `space` is what stands before it, if anything; `badness` is that of a break behind it.
    """

    text: str
    space: str
    columns: int
    start_ms: int
    end_ms: int
    estimated: bool
    cjk: bool
    ends_sentence: bool
    badness: float


class _Piece(NamedTuple):
    space: str
    timed: Sequence[Timed]
    torn: bool = False
    """Whether the word goes on in the next piece."""


def cut(timed: Sequence[Timed], latin_columns: int, cjk_columns: int) -> list[Unit]:
    """The units, in order. A word that is too long for a line is cut between characters."""
    pieces = [part for piece in _pieces(timed) for part in _torn(piece, latin_columns, cjk_columns)]
    pieces = [piece for piece in pieces if not all(one.character.isspace() for one in piece.timed)]  # no-break ones
    return [_unit(piece, following) for piece, following in zip_longest(pieces, pieces[1:])]


def joined(units: Sequence[Unit]) -> str:
    """The text of `units` on one line."""
    return units[0].text + "".join(unit.space + unit.text for unit in units[1:])


def width(units: Sequence[Unit]) -> int:
    """Columns of the same."""
    return sum(unit.columns + columns(unit.space) for unit in units) - columns(units[0].space)


def arrange(units: Sequence[Unit], most_columns: int) -> tuple[str, ...]:
    """One line if it is not too long, or else two of about one length, broken where that is good.

    Where not even two lines are enough, which is for the caller to avoid, they are as even as can be.
    """
    if len(units) == 1 or width(units) <= most_columns:
        return (joined(units),)
    splits = range(1, len(units))
    best = min(splits, key=lambda split: _split_badness(units[:split], units[split:], most_columns))
    return joined(units[:best]), joined(units[best:])


def _split_badness(top: Sequence[Unit], bottom: Sequence[Unit], most_columns: int) -> tuple[int, float]:
    above, below = width(top), width(bottom)
    uneven = _UNEVEN * abs(above - below) / most_columns + (_TOP_HEAVY if above > below else 0)
    return max(above - most_columns, below - most_columns, 0), uneven + top[-1].badness


def _pieces(timed: Sequence[Timed]) -> Iterator[_Piece]:
    space, piece = "", list[Timed]()
    for one in timed:
        if piece and (is_space(one.character) or may_break(piece[-1].character, one.character)):
            yield _Piece(space, piece)
            space, piece = "", []
        if is_space(one.character):
            space = one.character
        else:
            piece.append(one)
    if piece:
        yield _Piece(space, piece)


def _torn(piece: _Piece, latin_columns: int, cjk_columns: int) -> Iterator[_Piece]:
    """`piece`, or parts of it that fit a line, cut where a character begins unless it alone is too wide."""
    most = cjk_columns if any(is_cjk(one.character) for one in piece.timed) else latin_columns
    sizes = [columns(one.character) for one in piece.timed]
    space, begun, safe, used = piece.space, 0, 0, 0
    for place, size in enumerate(sizes):
        if place and not continues(piece.timed[place - 1].character, piece.timed[place].character):
            safe = place
        if used + size > most and place > begun:
            at = safe if safe > begun else place
            yield _Piece(space, piece.timed[begun:at], torn=True)
            space, begun, used = "", at, sum(sizes[at:place])
        used += size
    yield _Piece(space, piece.timed[begun:])


def _unit(piece: _Piece, following: _Piece | None) -> Unit:
    text = "".join(one.character for one in piece.timed)
    after = "".join(one.character for one in following.timed) if following else ""
    ends_sentence = not piece.torn and _ends_sentence(text, after)
    if piece.torn:
        badness = INSIDE_WORD
    elif ends_sentence:
        badness = GOOD
    elif text.rstrip(_CLOSING).endswith(tuple(CLAUSE_END)):
        badness = CLAUSE
    elif piece.timed[-1].ends_segment:
        badness = SEGMENT
    elif following is None:
        badness = PLAIN
    elif piece.timed[-1].within_word or _is_bound(text, after, following.space):
        badness = BOUND
    else:
        badness = LIKELY if _is_likely(text, after, following.space) else PLAIN
    return Unit(
        text,
        piece.space,
        columns(text),
        piece.timed[0].start_ms,
        piece.timed[-1].end_ms,
        any(one.estimated for one in piece.timed),
        any(is_cjk(one.character) for one in piece.timed),
        ends_sentence,
        badness,
    )


def _ends_sentence(text: str, after: str) -> bool:
    bare = text.rstrip(_CLOSING)
    if not bare.endswith(tuple(SENTENCE_END)) or after[:1].islower():
        return False
    return bare.lower() not in _TITLES and not (len(bare) == 2 and bare[0].isalpha() and bare[1] == ".")


def _is_bound(text: str, after: str, space: str) -> bool:
    if space:
        return text.isalpha() and len(text) <= _SHORT_WORD and not is_cjk(text[-1])
    last, first = text[-1], after[0]
    # In Japanese, hiragana goes on with the word before it, and katakana in a row are one.
    goes_on = is_hiragana(first) and not is_hiragana(last)
    return goes_on or (is_katakana(first) and is_katakana(last)) or first in _PARTICLES or last.isdigit()


def _is_likely(text: str, after: str, space: str) -> bool:
    last, first = text[-1], after[0]
    if space:
        return after.lower() in _BEGINNERS or is_cjk(last) or is_cjk(first)
    return last in _PARTICLES or (is_hiragana(last) and not is_hiragana(first) and last not in _HONORIFICS)
