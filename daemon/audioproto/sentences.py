"""Sentences: where those of any language end, in text that is whole and in text that is still coming.

Pure, standard library only: workers speak sentence by sentence, the daemon cuts text that arrives in pieces. What a
sentence sounds like is the engines' affair. Marks: Unicode 16, PropList.txt, Sentence_Terminal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

LONGEST_SENTENCE = 400
"""Characters handed to a pronouncer at once; about half a minute of speech."""

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Chinese characters, for use inside a regular expression's brackets (Unicode 16, Scripts.txt, script Han; with 〇)."""

KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"
"""Japanese syllables and their marks, for use in brackets too."""

ARABIC = "\u0620-\u064a\u066e-\u06d3\u0750-\u077f"
"""Arabic letters, of other languages that are written with them too, for use in brackets."""

_CLOSING = "\"'”’»）)\\]】」』》"
_OWN_MARKS = (
    "\u0589\u061d-\u061f\u06d4\u0700-\u0702\u0964\u0965\u0f0d\u104b\u1362\u1367\u1368\u17d4\u17d5\u1803\u1809"
    "\u203c\u203d\u2047-\u2049\u3002\ufe52\ufe56\ufe57\uff01\uff1f\uff61"
)
"""Marks that do nothing but end sentences, blank after them or not: Armenian, Arabic and Urdu, Syriac, Devanagari and
its sisters, Tibetan, Burmese, Ethiopic, Khmer, Mongolian, doubled marks, Chinese and Japanese."""

_END = re.compile(
    rf"[{_OWN_MARKS}][{_OWN_MARKS}!?….]*[{_CLOSING}]*"
    rf"|[.!?…]{{1,20}}[{_CLOSING}]{{0,5}}(?=\s)"  # bounded, so that no text takes quadratic time
    rf"|[.!?]{{1,20}}[{_CLOSING}]{{0,5}}(?=[{HAN}{KANA}])"
)
_LINE_END = re.compile(r"\n\s*")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"“])(?:Mr|Mrs|Ms|Mx|Dr|Prof|St|Sr|Jr|Rev|Hon|Gen|Col|Capt|Lt|Sgt|No|Nos|vs|etc|e\.g|i\.e|cf|al|approx"
    r"|fig|Fig|vol|Vol|pp?|(?:[A-Z]\.)*[A-Z])$|^\d{1,3}$",
    re.MULTILINE,
)
_CLAUSE_END = re.compile(rf"(?:[,;:](?!(?<=\d.)\d)|[—،؛，、；：፣፤፥᠂၊])[{_CLOSING}]*")
"""A mark between two digits is part of a number or a time."""
_BLANK = re.compile(r"[^\S\n]+")

_OPENING, _LEAST_OPENING = 80, 20
"""Characters: of a first sentence that is spoken whole, and the fewest that are spoken before the rest of a longer."""


def sentences(text: str) -> Iterator[str]:
    """The sentences of `text`, in order, none longer than LONGEST_SENTENCE; a line's end ends one too.

    Their characters other than blanks are those of `text`. A full stop after a title, an initial or an item's number
    ("Dr. Who", "J. Smith", "No. 5", "1. First") ends no sentence, nor does any Latin mark before a small letter.
    """
    for line in text.split("\n"):
        begin = 0
        for end in _ends(line):
            yield from _bounded(line[begin:end].strip())
            begin = end
        yield from _bounded(line[begin:].strip())


def complete(text: str, *, pausing: bool = False) -> int:
    """How many characters of `text`, to which more will be added, are whole sentences, whatever comes.

    A mark is not taken for an end before what follows it has come: "3." may become 3.14, and a quotation be closed. It
    is where nothing has followed for a while (`pausing`). Of a text without marks, LONGEST_SENTENCE are enough.
    """
    found = 0
    for line in _LINE_END.finditer(text):
        follows = text[line.end() : line.end() + 1]
        if line[0].count("\n") > 1 or pausing or (follows and not follows.islower()):
            found = line.end()
    for end in _ends(text + " " if pausing else text):
        if end < len(text) or pausing:
            found = max(found, end)
    while len(text) - found > LONGEST_SENTENCE:
        unmarked = text[found : found + LONGEST_SENTENCE]
        found += LONGEST_SENTENCE - len(halves(unmarked, latest=True)[1])
    return found


def opening(sentence: str) -> tuple[str, str]:
    """A first sentence in two, so that it is heard sooner: its first clause of some length, and the rest.

    The rest is empty where it is short, or has no clause mark to be cut at.
    """
    if len(sentence) > _OPENING:
        for clause in _CLAUSE_END.finditer(sentence, _LEAST_OPENING):
            follows = sentence[clause.end() : clause.end() + 1]
            if clause.end() <= len(sentence) - _LEAST_OPENING and not follows.isdigit():
                return sentence[: clause.end()], sentence[clause.end() :].lstrip()
    return sentence, ""


def halves(sentence: str, *, latest: bool = False) -> tuple[str, str]:
    """`sentence`, stripped and of two characters or more, in two: after the clause mark nearest to its middle, else
    at the blank, else between two characters. A mark in the outer fifths is passed over, so that halving ends soon.

    With `latest`, after the last such mark or blank instead of that nearest to the middle.
    """
    middle, outer = len(sentence) // 2, max(1, len(sentence) // 5)
    goal = len(sentence) if latest else middle
    for border in (_CLAUSE_END, _BLANK):
        if ends := [at.end() for at in border.finditer(sentence) if outer <= at.end() <= len(sentence) - outer]:
            middle = min(ends, key=lambda end: abs(end - goal))
            break
    else:
        middle = _before_marks(sentence, middle)
    return sentence[:middle].rstrip(), sentence[middle:].lstrip()


def _before_marks(sentence: str, middle: int) -> int:
    """The nearest place before `middle` that does not part a letter from the accents, vowels or tones on it."""
    at = middle
    while at > 1 and unicodedata.category(sentence[at])[0] == "M":
        at -= 1
    return at if unicodedata.category(sentence[at])[0] != "M" else middle


def _ends(line: str) -> Iterator[int]:
    for end in _END.finditer(line):
        if end[0][0] not in ".!?…" or _ends_sentence(line, end):
            yield end.end()


def _ends_sentence(line: str, stop: re.Match[str]) -> bool:
    if line[stop.end() : stop.end() + 2].lstrip()[:1].islower():
        return False
    return stop[0] != "." or not _ABBREVIATED.search(line, max(0, stop.start() - 12), stop.start())


def _bounded(sentence: str) -> Iterator[str]:
    if len(sentence) > LONGEST_SENTENCE:
        for half in halves(sentence):
            yield from _bounded(half)
    elif sentence:
        yield sentence
