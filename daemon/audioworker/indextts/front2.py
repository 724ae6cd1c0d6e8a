"""IndexTTS2's front end for text, Chinese and English: the library's own, with our reader of numbers."""

from __future__ import annotations

import re
from pathlib import Path

from audioproto.sentences import HAN
from audioworker.indextts.front import Front, Reader

BPE = "bpe.model"

_HAN, _LETTER = re.compile(f"[{HAN}]"), re.compile("[A-Za-z]")


class Front2(Front):
    """Of the checkpoint in the directory `where`."""

    spoken = "Chinese and English"

    def __init__(self, where: Path) -> None:
        from indextts.utils.front import TextNormalizer, TextTokenizer

        chinese, english = Reader("zh"), Reader("en")
        normalizers = [TextNormalizer(), TextNormalizer()]
        for normalizer in normalizers:
            normalizer.enable_glossary = True
            normalizer._normalizers = {"zh": chinese, "en": english}
            # As the authors' own package calls them.
            normalizer.zh_normalizer, normalizer.en_normalizer = chinese, english
            if (where / "glossary.yaml").exists():
                normalizer.load_glossary_from_yaml(str(where / "glossary.yaml"))
        self._normalizer, self._english = normalizers
        self._english.preferred_language = "en"
        self._english.use_chinese = lambda text: False  # in the authors' own package
        tokenizer = TextTokenizer(str(where / BPE), None)
        pieces = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        silent = {number for number, piece in enumerate(pieces) if not any(map(str.isalnum, piece))}
        self._silent = silent | {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
        """Ids of tokens without a sound: punctuation, and what the tokenizer has no token for."""
        self._tokenizer = tokenizer

    def language(self, asked: str, written: str) -> str:
        return asked or ("zh" if _HAN.search(written) or not _LETTER.search(written) else "en")

    def encode(self, sentence: str, language: str) -> list[int]:
        # The library goes by a sentence's own letters; what has none is read in the language of those around it.
        lone = language == "en" and not _HAN.search(sentence) and not _LETTER.search(sentence)
        normalizer = self._english if lone else self._normalizer
        ids: list[int] = self._tokenizer.encode(normalizer.normalize(sentence))
        return [] if self._silent.issuperset(ids) else ids
