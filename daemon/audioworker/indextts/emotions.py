"""IndexTTS2's emotions in numbers: how much of each sounds natural, and what its emotion model's answers mean.

Pure. Values are in the order of audioproto.types.EMOTIONS. Constants are the library's (emotion.py, infer_v2.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from audioproto.types import EMOTIONS

PROMPT = "文本情感分类"
"""What the emotion model is told to do: to classify the emotions of a text."""

_WORDS = dict(zip("高兴 愤怒 悲伤 恐惧 反感 低落 惊讶 自然".split(), EMOTIONS, strict=True))  # noqa: SIM905
"""What it calls them."""

_BIAS = (0.9375, 0.875, 1.0, 1.0, 0.9375, 0.9375, 0.6875, 0.5625)
_MOST = 0.8

_STRONGEST = 1.2
_VALUE = re.compile(r'([^\s":.,{}]{1,20})"?\s{0,9}:\s{0,9}"?(\d{1,3}(?:\.\d{0,9})?)')

_LOW_SPIRITS = ("低落", "melancholy", "melancholic", "depression", "depressed", "gloomy", "nostalgia")
"""What the model takes for grief."""


def natural(vector: Sequence[float]) -> list[float]:
    """A vector that somebody has chosen, with less of what easily sounds odd, and not too much of everything."""
    values = [value * bias for value, bias in zip(vector, _BIAS, strict=True)]
    total = sum(values)
    return [value * _MOST / total for value in values] if total > _MOST else values


def parse(answer: str, described: str) -> list[float]:
    """The vector in the emotion model's `answer` about the text `described`; calm where there is none."""
    found = {_WORDS[word]: min(_STRONGEST, float(value)) for word, value in _VALUE.findall(answer) if word in _WORDS}
    if any(word in described.lower() for word in _LOW_SPIRITS):
        found["sad"], found["melancholic"] = found.get("melancholic", 0.0), found.get("sad", 0.0)
    if not any(found.values()):
        found = {"calm": 1.0}
    return [found.get(name, 0.0) for name in EMOTIONS]
