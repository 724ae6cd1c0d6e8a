"""Word times without a model's help: what a word is, when it is probably said, and times that never run backwards.

Pure. The aligner uses it for its words and where it cannot do its work, the transcriber where only estimates are asked.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from audioproto.spacing import is_unspaced
from audioproto.worker import Word

_PAUSE = {**dict.fromkeys(".!?。！？…", 6.0), **dict.fromkeys(",;:，、；：—", 3.0)}
"""How many letters' time is lost after a mark."""

_LETTERS_OF_A_SIGN = 3.0
"""How many Latin letters take as long as one Chinese character, or one digit read aloud."""


def pieces(text: str) -> list[str]:
    """`text` cut into words, and each character alone where words have no blanks between them.

    Together they are `text`. A mark goes with the word before it, a blank with the word after it, as in Whisper's.
    """
    cut: list[str] = []
    alone = True  # nothing may be added to the last piece but marks
    for character in text:
        if character.isspace():
            if not cut or not cut[-1].isspace():
                cut.append("")
            cut[-1] += character
            alone = False
        elif not _is_said(character):
            if not cut:
                cut.append("")
            cut[-1] += character
        elif is_unspaced(character):
            if alone or not cut or spoken(cut[-1]):
                cut.append("")
            cut[-1] += character
            alone = True
        else:
            if alone or not cut:
                cut.append("")
            cut[-1] += character
            alone = False
    return _with_words(cut)


def _with_words(cut: Sequence[str]) -> list[str]:
    """The same, with what nobody says joined to the word before it, or to the first word."""
    joined: list[str] = []
    for piece in cut:
        if joined and not (spoken(piece) and spoken(joined[-1])):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def spoken(piece: str) -> str:
    """What of a piece is said: letters, digits and apostrophes."""
    return "".join(character for character in piece if _is_said(character))


def _is_said(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LN"


def estimate(text: str, start: float, end: float) -> list[Word]:
    """The words of `text` with times in seconds from `start` to `end`, in proportion to what there is to say."""
    words = pieces(text)
    lengths = [_length(word) for word in words]
    total = sum(lengths) or 1.0
    made: list[Word] = []
    said = 0.0
    for word, length in zip(words, lengths, strict=True):
        begin = start + (end - start) * said / total
        said += length
        last = start + (end - start) * (said - _pause(word)) / total
        made.append(Word(word, round(begin, 3), round(max(begin, last), 3)))
    return ascending(made, start, end)


def _length(word: str) -> float:
    slow = sum(is_unspaced(character) or character.isdigit() for character in spoken(word))
    return max(1.0, len(spoken(word)) - slow + slow * _LETTERS_OF_A_SIGN) + _pause(word)


def _pause(word: str) -> float:
    return max((_PAUSE[character] for character in word if character in _PAUSE), default=0.0)


def ascending(words: Sequence[Word], start: float, end: float) -> list[Word]:
    """The same words with times between `start` and `end` of which none is before the one before it."""
    made: list[Word] = []
    now = start
    for word in words:
        begin = min(max(word.start, now), end)
        now = min(max(word.end, begin), end)
        made.append(Word(word.word, begin, now, word.probability))
    return made
