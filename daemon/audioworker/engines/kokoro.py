"""kokoro: Kokoro-82M on onnxruntime, Mandarin and English in one sentence, a voice for each file in `voices/`.

Owns how text becomes Kokoro's phonemes. Runs the int8 export on the CPU; other languages of the model are not spoken.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import warnings
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from audioproto.errors import BadRequest, EngineFailed, UnspeakableText, VoiceNotFound
from audioproto.sentences import HAN, opening, sentences
from audioproto.types import EngineSpec, Hold
from audioproto.worker import Synthesize
from audioworker import engine, text
from audioworker.engine import Audio, Cancelled, Recordings

if TYPE_CHECKING:
    from hibari.g2p import G2P

CHINESE_VOICE = "zf_xiaobei"
ENGLISH_VOICE = "af_heart"

_STYLE_SHAPE = (510, 256)
"""Rows of a voice file: one for each number of phonemes, less one (hexgrad/Kokoro-82M, kokoro/model.py)."""

_MOST_PHONEMES = 250
"""Phonemes in one run; the model takes 510. At 250 a worker stays near 600 MB, at 509 it reaches 890 MB, and the first
sound of a long sentence comes twice as soon."""

_LAST_PUNCTUATION_ID = 16
"""Ids up to here are punctuation and the blank (config.json of hexgrad/Kokoro-82M)."""

_SILENCE = 0.01
"""Amplitude below which a sample counts as silence; the model's own noise stays under 0.005."""

_LEAD_S, _SENTENCE_PAUSE_S, _CLAUSE_PAUSE_S = 0.1, 0.5, 0.15
"""Silence kept before a run, after a sentence, and after a part of one. The model leaves 0.4 s before and, in Mandarin,
1.0 s after: too long a wait in a conversation. hibari leaves 0.3 and 0.45 s."""

_PAUSE_S = 0.3

_HAN = re.compile(f"[{HAN}]")
_RUN = re.compile(rf"([{HAN}]+)|([A-Za-z\u00c0-\u024f]+(?:[ '’.&-]+[A-Za-z\u00c0-\u024f]+)*)|(.)", re.DOTALL)
_PUNCTUATION = {
    **{mark: mark for mark in ';:,.!?—…"()“” '},
    **dict(zip("，、。．！？；：％·", (", ", ", ", ". ", ". ", "! ", "? ", "; ", ": ", " ", " "), strict=True)),
    **dict.fromkeys("《「『【〈", " “"),
    **dict.fromkeys("》」』】〉", "” "),
    "（": " (",
    "）": ") ",
    "-": " ",
}
_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")
_SPOKEN_SIGNS = str.maketrans({"〇": "零", "+": "加", "=": "等于", "×": "乘", "÷": "除以", "&": "和"})
_MONEY = re.compile(r"([¥￥$€£])\s?(\d+(?:\.\d+)?(?:[万亿千百])?)(?:元|块)?")
_CURRENCY = {"¥": "元", "￥": "元", "$": "美元", "€": "欧元", "£": "英镑"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_CLOCK = re.compile(r"(?<![\d:])(\d{1,2}):(\d{2})(?![\d:])")
_MINUS = re.compile(r"(?<!\d)-(?=\d+(?:\.\d+)?\s?[℃°度])|(?<![^\s(（，：:])-(?=\d)")
"""Before a temperature, or where nothing stands before it that a range could begin with ("2020年-2024年")."""
_DIGIT_STRING = re.compile(r"(?<![\d.])(?:0\d+|\d{9,})(?!\.?\d)")
"""A leading zero or nine digits: a telephone number or an identifier, read digit by digit."""


class Engine(engine.Engine, engine.Synthesizer):
    """No options. `model_dir` holds `model.onnx` and `voices/<id>.bin` (float32, little-endian, shape [510, 256]).

    `voice` defaults to zf_xiaobei where the text has Chinese characters, else to af_heart. Voices whose name begins
    with b pronounce English the British way.

    Several threads may call `synthesize` at once; they share `spec.threads` threads of computation. Equal requests give
    equal audio on one machine; across machines int8 rounding differs.
    """

    hold: ClassVar[Hold] = Hold.IMPORTS  # a session's threads do not survive a fork: one made before runs at half speed
    sample_rate: ClassVar[int] = 24_000
    speed_range: ClassVar[tuple[float, float]] = (0.5, 2.0)

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__(spec)
        if spec.options:
            raise BadRequest(f"{spec.model}: the engine kokoro has no option {min(spec.options)!r}; it has none")
        if spec.device != "cpu":
            raise BadRequest(f"{spec.model}: the engine kokoro runs on the CPU only", hint='set device = "cpu"')
        self._voices = Path(spec.model_dir) / "voices"
        self._british: G2P | None = None
        self._making = threading.Lock()

    def prepare(self) -> None:
        # Read by onnxruntime 1.29 and later, which otherwise reports model hashes to its maker, writes into the home
        # directory and starts a thread before the fork.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        self.progress("importing onnxruntime and misaki")
        import hibari.tts
        import onnxruntime  # noqa: F401
        from hibari.g2p import G2P

        # It warns of every number that it cannot read; _numbers_in_words reads those digit by digit.
        warnings.filterwarnings("ignore", module=r"cn2an\.")
        self.progress("reading the dictionaries")
        _load_jieba()
        # hibari is Kokoro's pupil and has its alphabet.
        vocabulary = Path(hibari.tts.ASSETS, "vocab.json").read_bytes()
        self._vocabulary = msgspec.json.decode(vocabulary, type=dict[str, int])
        self._american = G2P()
        # Through everything that is made on first use, the model for unknown words included.
        self._ids("你好，Qzorbly 2024年。", self._american)

    def load(self) -> None:
        import onnxruntime

        self.progress("reading the weights")

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.spec.threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # sentences differ in length; patterns would keep 160 MB for each
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle worker must be idle
        model = Path(self.spec.model_dir, "model.onnx")
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def synthesize(self, request: Synthesize, recordings: Recordings, cancelled: Cancelled) -> Iterator[Audio]:
        chinese = _HAN.search(request.text) is not None
        voice = request.voice or (CHINESE_VOICE if chinese else ENGLISH_VOICE)
        style = self._style(voice)
        if text.only_punctuation(request.text):
            yield np.zeros(round(_PAUSE_S * self.sample_rate), np.float32)
            return
        encode = partial(self._ids, english=self._english(british=voice.startswith("b")))
        spoken = False
        for number, sentence in enumerate(sentences(text.clean(request.text))):
            parts = opening(sentence) if number == 0 else (sentence, "")
            runs = itertools.chain.from_iterable(text.encoded(part, encode, _MOST_PHONEMES) for part in parts if part)
            for ids, following in itertools.pairwise(itertools.chain(runs, [None])):
                if cancelled():
                    return
                assert ids is not None
                if all(code <= _LAST_PUNCTUATION_ID for code in ids):
                    continue
                pause_s = _SENTENCE_PAUSE_S if following is None else _CLAUSE_PAUSE_S
                yield _trimmed(self._run(ids, style, request.speed), self.sample_rate, pause_s / request.speed)
                spoken = True
        if not spoken:
            raise UnspeakableText(
                f"{self.spec.model} speaks Chinese and English and finds nothing to say in this text",
                hint="audioctl models lists the languages of each model",
                param="input",
            )

    def _run(self, ids: list[int], style: npt.NDArray[np.float32], speed: float) -> Audio:
        feed = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style[len(ids) - 1][None],
            "speed": np.array([speed], np.float32),
        }
        audio: Audio = self._session.run(None, feed)[0].ravel()
        return audio

    def _style(self, voice: str) -> npt.NDArray[np.float32]:
        file = self._voices / f"{voice}.bin"
        if not re.fullmatch(r"[a-z0-9_]+", voice) or not file.is_file():
            known = ", ".join(sorted(path.stem for path in self._voices.glob("*.bin")))
            raise VoiceNotFound(
                f"{self.spec.model} has no voice {voice!r}; it has {known}", hint="audioctl models", param="voice"
            )
        return _read_style(file)

    def _english(self, *, british: bool) -> G2P:
        """The pronouncer of English. The British one costs 95 MB and 0.4 s, so it is made when first asked for."""
        if not british:
            return self._american
        with self._making:
            if self._british is None:
                from hibari.g2p import G2P

                self._british = G2P(british=True)
            return self._british

    def _ids(self, sentence: str, english: G2P) -> list[int]:
        """Phoneme ids of one sentence; what has no sound in Chinese or English has no id."""
        phonemes = _mixed(sentence, english) if _HAN.search(sentence) else english(sentence)
        return [self._vocabulary[sound] for sound in phonemes if sound in self._vocabulary]


def _mixed(sentence: str, english: G2P) -> str:
    """Phonemes of a sentence with Chinese characters: numbers are read in Chinese, Latin letters in English.

    Each script goes to its own pronouncer, because misaki passes on what it does not know, and an α or a → in the text
    would be taken for a phoneme or a tone.
    """
    parts = []
    for han, latin, other in _RUN.findall(_numbers_in_words(sentence)):
        if han:
            parts.append(_pinyin(han))
        elif latin:
            parts.append(f" {english(latin)} ")
        else:
            parts.append(_PUNCTUATION.get(other, ""))
    return " ".join("".join(parts).split())


def _numbers_in_words(sentence: str) -> str:
    import cn2an

    sentence = _THOUSANDS.sub("", sentence.translate(_SPOKEN_SIGNS))
    sentence = _MONEY.sub(lambda money: money[2] + _CURRENCY[money[1]], sentence)
    sentence = _CLOCK.sub(lambda clock: f"{clock[1]}点" + (f"{clock[2]}分" if clock[2] != "00" else "整"), sentence)
    sentence = _MINUS.sub("负", sentence)
    sentence = _DIGIT_STRING.sub(lambda digits: digits[0].translate(_DIGITS), sentence)
    words: str = cn2an.transform(sentence, "an2cn")
    return words.translate(_DIGITS)


def _pinyin(han: str) -> str:
    """Phonemes of Chinese characters, a blank between words; characters that no dictionary pronounces are left out."""
    import jieba
    from misaki.zh import ZHG2P

    words = []
    for word in jieba.lcut(han):
        try:
            words.append(ZHG2P.word2ipa(word))
        except ValueError:
            words.append("".join(_syllable(character) for character in word))
    return " ".join(words)


def _syllable(character: str) -> str:
    from misaki.zh import ZHG2P

    try:
        sound: str = ZHG2P.word2ipa(character)
    except ValueError:
        return ""
    return sound


def _load_jieba() -> None:
    """Read jieba's dictionary from its wheel.

    Its own loader keeps a cache at a guessable place in the shared temporary directory and unmarshals whatever it finds
    there; reading the text takes 0.5 s longer, once for each zygote.
    """
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    dictionary: Any = jieba.dt
    dictionary.FREQ, dictionary.total = dictionary.gen_pfdict(dictionary.get_dict_file())
    dictionary.initialized = True


@cache
def _read_style(file: Path) -> npt.NDArray[np.float32]:
    style = np.fromfile(file, "<f4")
    if style.size != _STYLE_SHAPE[0] * _STYLE_SHAPE[1]:
        raise EngineFailed(
            f"{file} is no voice of Kokoro: {style.size * 4} bytes", hint="audioctl models pull, after removing it"
        )
    return style.reshape(_STYLE_SHAPE)


def _trimmed(audio: Audio, rate: int, pause_s: float) -> Audio:
    """`audio` with at most _LEAD_S of silence before it, and `pause_s` after it."""
    loud = np.flatnonzero(np.abs(audio) > _SILENCE)
    if loud.size == 0:
        return audio
    begin = max(0, loud[0] - round(_LEAD_S * rate))
    end = loud[-1] + 1 + round(pause_s * rate)
    return np.pad(audio[begin:end], (0, max(0, end - audio.size)))
