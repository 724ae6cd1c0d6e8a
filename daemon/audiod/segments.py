"""A segment for each sentence: what models that hear half a minute in one go leave to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from audioproto.sentences import sentences
from audioproto.worker import Segment, Word


def by_sentence(segment: Segment) -> Iterator[Segment]:
    """The segment's sentences, from their first word's beginning to their last word's end; together they are its text.

    A segment whose words are not its text is left as it is.
    """
    if "".join(word.word for word in segment.words) != segment.text:
        yield segment
        return
    said: list[Word] = []
    ends = _ends(segment.text)
    end, seen = next(ends, 0), 0
    for word in segment.words:
        said.append(word)
        seen += _count(word.word)
        if seen >= end:
            yield _sentence(segment, said)
            said = []
            while end <= seen:
                end = next(ends, seen + 1)
    if said:
        yield _sentence(segment, said)


def _ends(text: str) -> Iterator[int]:
    """Where each sentence ends, counted in characters that are no blanks."""
    at = 0
    for sentence in sentences(text):
        at += _count(sentence)
        yield at


def _count(text: str) -> int:
    return sum(not character.isspace() for character in text)


def _sentence(segment: Segment, words: list[Word]) -> Segment:
    whole = len(words) == len(segment.words)
    return replace(
        segment,
        start=words[0].start,
        end=words[-1].end,
        text="".join(word.word for word in words),
        words=words,
        tokens=segment.tokens if whole else [],  # which token is whose is not known
    )
