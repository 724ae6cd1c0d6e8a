"""IndexTTS2's emotions in numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioproto.types import EMOTIONS
from audioworker.indextts import emotions

VECTORS = st.lists(st.floats(0, 1), min_size=len(EMOTIONS), max_size=len(EMOTIONS))


@given(VECTORS)
def test_a_natural_vector_is_never_more_than_asked_for_nor_too_much_in_all(vector: list[float]) -> None:
    values = emotions.natural(vector)
    assert sum(values) <= 0.8 + 1e-9
    assert all(0 <= value <= asked for value, asked in zip(values, vector, strict=True))
    assert all(value > 0 for value, asked in zip(values, vector, strict=True) if asked > 0.001)


def test_a_vector_of_one_emotion_is_the_library_s() -> None:
    assert emotions.natural([0, 0, 0, 0, 0, 0, 0.5, 0]) == [0, 0, 0, 0, 0, 0, 0.34375, 0]
    assert emotions.natural([1, 0, 0, 0, 0, 0, 0, 0])[0] == pytest.approx(0.8)


WORDS = "高兴 愤怒 悲伤 恐惧 反感 低落 惊讶 自然".split()  # noqa: SIM905


@given(st.lists(st.floats(0, 2).map(lambda value: round(value, 2)), min_size=8, max_size=8))
def test_an_answer_is_read_as_it_is_written_up_to_the_strongest(values: list[float]) -> None:
    answer = json.dumps(dict(zip(WORDS, values, strict=True)), ensure_ascii=False)
    expected = [min(1.2, value) for value in values]
    assert emotions.parse(answer, "a text") == (expected if any(values) else [0, 0, 0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", {"calm": 1.0}),
        ("没有情感", {"calm": 1.0}),
        ('{"高兴": 0.5, "其他": 0.9}', {"happy": 0.5}),
        ('{"高兴": 0.5, "愤怒": ', {"happy": 0.5}),
        ("高兴: 0.3, 惊讶: 1", {"happy": 0.3, "surprised": 1.0}),
        ('<think></think>{"悲伤": "0.7"}', {"sad": 0.7}),
    ],
)
def test_what_can_be_read_of_an_answer_is(answer: str, expected: dict[str, float]) -> None:
    found = dict(zip(EMOTIONS, emotions.parse(answer, "a text"), strict=True))
    assert {name: value for name, value in found.items() if value} == expected


def test_low_spirits_are_not_taken_for_grief() -> None:
    values = emotions.parse('{"悲伤": 0.7, "低落": 0.1}', "She was Melancholic that day.")
    assert (values[EMOTIONS.index("sad")], values[EMOTIONS.index("melancholic")]) == (0.1, 0.7)


@given(st.text(max_size=300), st.text(max_size=50))
def test_any_answer_gives_a_vector(answer: str, described: str) -> None:
    values = emotions.parse(answer, described)
    assert len(values) == len(EMOTIONS)
    assert all(0 <= value <= 1.2 for value in values)
    assert any(values)
