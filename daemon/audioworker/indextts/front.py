"""A text on its way to the language model: in which language, read aloud how, cut into which parts, as ids of tokens.

What is the same for IndexTTS2 and IndexTTS-2.5. Knows no networks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

from audioproto.sentences import sentences
from audioworker import text

_FIRST_TOKENS = 40
"""Of the first part, which somebody waits for: some ten seconds of speech, where whole sentences may have thirty."""


class Front(ABC):
    """Text to parts."""

    spoken: str
    """The languages, for people."""

    @abstractmethod
    def language(self, asked: str, written: str) -> str:
        """The code of the language that a text is spoken in. `asked` is one, or empty.

        Raises BadRequest and UnspeakableText.
        """

    def parts(self, written: str, language: str, most: int) -> Iterator[tuple[list[int], int]]:
        """The text as tokens, in parts that are spoken in one go. The first is short, so that it is heard soon.

        A part ends where a sentence does, unless one is too long. What has no sound is left out. Each comes with how
        many there will be, by what is cut so far: numbers take so long to be read aloud that a text is cut as it is
        spoken.
        """
        part, begun = list[int](), False

        def encode(sentence: str) -> list[int]:
            return self.encode(sentence, language)

        cleaned = self.guarded(text.clean(self.opened(written, language)))
        number, tokens, characters = 1, 0, 0
        for sentence in sentences(cleaned):
            for ids in text.encoded(sentence, encode, most if part or begun else min(most, _FIRST_TOKENS)):
                if not ids:
                    continue
                if part and (not begun or len(part) + len(ids) > most):
                    more = tokens / max(1, characters) * (len(cleaned) - characters) / most
                    yield self.whole(part, language), number + max(1, math.ceil(more))
                    part, begun = [], True
                    number += 1
                part = part + ids
                tokens += len(ids)
            characters += len(sentence)
        if part:
            yield self.whole(part, language), number

    def opened(self, written: str, language: str) -> str:
        """The text as it was written, with what is not the same in each language made so."""
        return written

    def guarded(self, cleaned: str) -> str:
        """The text with all that must not be cut as one character."""
        return cleaned

    @abstractmethod
    def encode(self, sentence: str, language: str) -> list[int]:
        """Ids of its tokens; numbers, dates and signs are read aloud. None at all where nothing would be heard."""

    def whole(self, ids: list[int], language: str) -> list[int]:
        """A part as the language model is to see it, of the ids of its sentences."""
        return ids


class Reader:
    """Reads numbers, dates and signs of one language aloud, where the libraries ask NeMo to.

    The authors' own package has the same grammars, by WeTextProcessing; these are compiled, while NeMo compiles its own
    for 48 s and with 850 MB at the first use.
    """

    def __init__(self, language: str) -> None:
        from wetext import Normalizer

        self._normalizer = Normalizer(lang=language, operator="tn")

    def normalize(self, text: str, verbose: bool = False) -> str:
        # Of both the grammars make what is escaped, and leave it so.
        read: str = self._normalizer.normalize(text.replace('"', "'").replace("\\", " "))
        return read
