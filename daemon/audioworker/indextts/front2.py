"""IndexTTS2's front end for text, Chinese and English: the library's own, with our reader of numbers."""

from __future__ import annotations

from pathlib import Path

from audioworker.indextts.front import Front, Reader

BPE = "bpe.model"


class Front2(Front):
    """Of the checkpoint in the directory `where`."""

    spoken = "Chinese and English"

    def __init__(self, where: Path) -> None:
        from indextts.utils.front import TextNormalizer, TextTokenizer

        normalizer = TextNormalizer()
        normalizer.enable_glossary = True
        chinese, english = Reader("zh"), Reader("en")
        normalizer._normalizers = {"zh": chinese, "en": english}
        normalizer.zh_normalizer, normalizer.en_normalizer = chinese, english  # as the authors' own package calls them
        if (where / "glossary.yaml").exists():
            normalizer.load_glossary_from_yaml(str(where / "glossary.yaml"))
        tokenizer = TextTokenizer(str(where / BPE), None)
        pieces = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        silent = {number for number, piece in enumerate(pieces) if not any(map(str.isalnum, piece))}
        self._silent = silent | {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
        """Ids of tokens without a sound: punctuation, and what the tokenizer has no token for."""
        self._normalizer, self._tokenizer = normalizer, tokenizer

    def encode(self, sentence: str, language: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(self._normalizer.normalize(sentence))
        return [] if self._silent.issuperset(ids) else ids
