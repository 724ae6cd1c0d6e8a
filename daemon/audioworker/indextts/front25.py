"""IndexTTS-2.5's front end for text: its language, then the library's own, with our readers of numbers.

Japanese is left out: the library takes its words apart with unidic-lite, of which there is no wheel. Digits in Arabic
stay as they are, as in the library.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

from audioproto.errors import BadRequest, UnspeakableText
from audioproto.languages import NAMES
from audioproto.sentences import ARABIC, HAN, KANA
from audioworker.indextts.front import Front, Reader

_ENCODING = "multilingual_zh_ja_yue_char_del"
VOCABULARY = f"{_ENCODING}.tiktoken"

LANGUAGES = ("zh", "en", "es", "ar")

_LATIN = "A-Za-z\u00c0-\u024f"
_SPOKEN = re.compile(f"[{_LATIN}{ARABIC}{HAN}{KANA}0-9\u0660-\u0669\u06f0-\u06f9]")
"""Of what is not among these nothing would be heard but noise."""

_ANNOTATION = re.compile(r"<[^|<>\n]{1,50}\|[^<>\n]{1,200}>")
"""A word and how it is pronounced, as the library has it: `<行|XING2>`, `<going|G OW1 . IH0 NG>`."""

_TOKEN = re.compile(r"<\|[^<>\n]{0,50}\|>")
"""What would be taken for a special token of the model's."""

_HIDDEN = {code: 0xE000 + code for code in range(0x20, 0x7F)}
_SHOWN = {hidden: code for code, hidden in _HIDDEN.items()}

_SPANISH_NUMBER = re.compile(r"(?<![\w.,])(\d{1,3}(?:\.\d{3})+|\d+)(?:[.,](\d+))?(\s?%)?(?![ºª\d]|[.,]\d)")


_DECIMAL_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{1,2}(?![0-9,]))")
"""As English has it, a comma is between thousands."""


class Front25(Front):
    """Of the checkpoint in the directory `where`, for the model of that name."""

    spoken = "Chinese, English, Spanish and Arabic"

    def __init__(self, model: str, where: Path) -> None:
        from indextts25 import infer_v2_5 as program
        from indextts25.utils.front import TextNormalizer
        from indextts25.utils.tokenizer import get_encoding

        normalizer = TextNormalizer(enable_glossary=True)
        normalizer.zh_normalizer, normalizer.en_normalizer = Reader("zh"), Reader("en")
        if (where / "glossary.yaml").exists():
            normalizer.load_glossary_from_yaml(str(where / "glossary.yaml"))
        program.nemo_text_normalize = lambda text, _: spanish(text)
        self._model = model
        self._prepare = program.IndexTTS2._prepare_text
        self._program = SimpleNamespace(text_process=normalizer)
        self._tokenizer = get_encoding(_ENCODING, model_dir=str(where))

    @property
    def tokens(self) -> int:
        """How many there are."""
        count: int = self._tokenizer.n_vocab
        return count

    def language(self, asked: str, written: str) -> str:
        code = asked or language_of(written)
        if code in LANGUAGES:
            return code
        message = f"{self._model} speaks {self.spoken}, and not {NAMES.get(code, code).title()}"
        if asked:
            raise BadRequest(message, param="language")
        raise UnspeakableText(message, hint="a language says which, where it is another one", param="input")

    def opened(self, written: str, language: str) -> str:
        return _DECIMAL_COMMA.sub(".", written) if language == "es" else written

    def guarded(self, cleaned: str) -> str:
        return _ANNOTATION.sub(lambda found: found[0].translate(_HIDDEN), _TOKEN.sub(" ", cleaned))

    def shown(self, guarded: str) -> str:
        """What was guarded, as it was."""
        return guarded.translate(_SHOWN)

    def encode(self, sentence: str, language: str) -> list[int]:
        shown = self.shown(sentence)
        if not _SPOKEN.search(shown):
            return []
        prepared = self._prepare(self._program, shown, language).strip()
        ids: list[int] = self._tokenizer.encode(_gap(language) + prepared, allowed_special="all")
        return ids

    def whole(self, ids: list[int], language: str) -> list[int]:
        """Tokens of one text, whose first tells the language: where sentences meet others may come out."""
        joined = self._tokenizer.decode(ids).lstrip()
        whole: list[int] = self._tokenizer.encode(f"<|{language}|> {joined}", allowed_special="all")
        return whole


def _gap(language: str) -> str:
    """What is written between two sentences."""
    return "" if language == "zh" else " "


def language_of(written: str) -> str:
    """The code of the language that a text is most likely in, of those that the model has ever learnt.

    By its letters alone: kana are Japanese, Han without them Chinese, and Latin ones English, unless there are marks
    that of the two only Spanish has. Some Arabic, kana or accents may be of names in another language.
    """

    def count(letters: str) -> int:
        return len(re.findall(f"[{letters}]", written))

    han, kana, arabic, latin = count(HAN), count(KANA), count(ARABIC), count(_LATIN)
    if kana and kana * 10 >= han + kana:
        return "ja"
    if arabic and arabic * 10 >= arabic + han + latin:
        return "ar"
    if han:
        return "zh"
    accents = count("áíóúñÁÍÓÚÑ")
    return "es" if count("¿¡") or (accents and accents * 100 >= latin) else "en"


def spanish(text: str) -> str:
    """A Spanish text with its numbers in words: whole and broken ones, and those of times and dates."""
    return _SPANISH_NUMBER.sub(_in_spanish, re.sub(r"(?<=\d)[:/](?=\d)", " ", text))


def _in_spanish(number: re.Match[str]) -> str:
    from num2words import num2words

    def words(digits: str) -> str:
        read: str = num2words(int(digits), lang="es")
        return read

    whole, fraction, percent = number.groups()
    said = words(whole.replace(".", ""))
    if fraction:
        said += " coma " + (" ".join(map(words, fraction)) if fraction[0] == "0" else words(fraction))
    if percent:
        said += " por ciento"
    return f"{said} " if number.string[number.end() : number.end() + 1].isalpha() else said
