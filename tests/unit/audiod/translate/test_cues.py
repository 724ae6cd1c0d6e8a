"""What a language model may answer, and that the cues stay ours whatever it does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.translate import cues
from audioproto.errors import BadRequest

TEXTS = ["one", "two", "three"]
GOOD = {0: "eins", 1: "zwei", 2: "drei"}
AS_ASKED = {"cues": [{"id": 1, "text": "eins"}, {"id": 2, "text": "zwei"}, {"id": 3, "text": "drei"}]}


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(AS_ASKED),
        f"Sure, here it is:\n```json\n{json.dumps(AS_ASKED, indent=2)}\n```\nAnything else?",
        f'<think>{{"cues": [{{"id": 1, "text": "no"}}]}} better not</think>{json.dumps(AS_ASKED)}',
        json.dumps(AS_ASKED["cues"]),
        json.dumps(AS_ASKED["cues"][::-1]),
        "\n".join(json.dumps(cue) for cue in AS_ASKED["cues"]),
        json.dumps({"1": "eins", "2": "zwei", "3": "drei"}),
        json.dumps({"translations": {"1": {"text": "eins"}, "2": {"text": "zwei"}, "3": {"text": "drei"}}}),
        json.dumps([{"id": "1", "de": "eins"}, {"index": 2.0, "translation": "zwei", "text": "two"}, [3, "drei"]]),
        json.dumps(["eins", "zwei", "drei"]),
        json.dumps({"texts": ["eins", "zwei", "drei"]}),
        json.dumps([{"id": 0, "text": "eins"}, {"id": 1, "text": "zwei"}, {"id": 2, "text": "drei"}]),
        json.dumps([*AS_ASKED["cues"], {"id": 3, "text": "again"}, {"id": 4, "text": "more"}]),
        json.dumps(AS_ASKED).replace('"eins"', '"eins\\n\\n"').replace('"zwei"', '" \\u0000zwei\\ud800"'),
    ],
)
def test_a_translation_is_found_in_whatever_shape_it_comes(answer: str) -> None:
    assert cues.read_answer(answer, TEXTS) == GOOD


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (json.dumps(AS_ASKED)[:-20], {0, 1}),
        (json.dumps(AS_ASKED["cues"][1:]), {1, 2}),
        (json.dumps(["eins", "zwei"]), set()),
        ('[{"id": 1, "text": null}, {"id": 2, "text": 5}, {"id": true, "text": "x"}, {"id": 3, "text": "drei"}]', {2}),
        ('[{"id": 1, "text": " \\n"}, {"id": 2, "text": "' + "la" * 1000 + '"}, {"id": 3, "text": "drei"}]', {2}),
        ("I cannot help with that.", set()),
        ("", set()),
        ("[" * 100_000, set()),
        ('{"a":' * 50_000, set()),
        (json.dumps(AS_ASKED) + "[" * 100, {0, 1, 2}),
    ],
)
def test_what_is_missing_or_unfit_is_left_out(answer: str, left: set[int]) -> None:
    assert set(cues.read_answer(answer, TEXTS)) == left


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "text", "cues", "1", "2", "x"]), inner),
)


@given(st.text() | ANYTHING.map(json.dumps) | st.text(alphabet='[]{}":,12id text\\n'), st.lists(st.text(), max_size=4))
def test_whatever_comes_back_it_is_one_plain_line_for_a_cue_that_was_asked_for(answer: str, texts: list[str]) -> None:
    for place, text in cues.read_answer(answer, texts).items():
        assert 0 <= place < len(texts)
        assert text
        assert text.splitlines() == [text]
        assert "-->" not in text
        text.encode()


@given(st.lists(st.text(max_size=30) | st.just("word " * 300), max_size=70))
def test_pieces_hold_every_text_that_says_anything_once_and_are_of_a_size_that_models_take(texts: list[str]) -> None:
    pieces = list(cues.pieces(texts))
    places = [place for piece in pieces for place in piece]
    assert places == [place for place, text in enumerate(texts) if cues.plain(text)]
    for piece in pieces:
        assert 0 < len(piece) <= cues.CUES
        assert len(piece) == 1 or sum(map(len, piece.values())) <= cues.CHARACTERS


def test_what_is_asked_has_every_text_with_its_number_and_names_the_language() -> None:
    orders, asked = cues.messages(['say "hi"', "你好"], cues.name_of("zh-TW"))
    assert "Traditional Chinese" in orders["content"]
    assert json.loads(asked["content"]) == {"cues": [{"id": 1, "text": 'say "hi"'}, {"id": 2, "text": "你好"}]}
    assert "你好" in asked["content"]


@pytest.mark.parametrize(
    ("tag", "code", "name", "glue"),
    [
        ("en", "en", "English", " "),
        ("zh", "zh", "Simplified Chinese", ""),
        ("zh-Hant-HK", "zh", "Traditional Chinese", ""),
        ("Chinese", "zh", "Simplified Chinese", ""),
        ("pt-BR", "pt", "Portuguese", " "),
    ],
)
def test_a_language_may_be_a_code_a_tag_or_a_name(tag: str, code: str, name: str, glue: str) -> None:
    assert (cues.read_target(tag), cues.name_of(tag), cues.glue(tag)) == (code, name, glue)


@pytest.mark.parametrize("tag", ["zz", "klingon", "", "auto"])
def test_no_language_is_refused_by_name(tag: str) -> None:
    with pytest.raises(BadRequest) as refused:
        cues.read_target(tag)
    assert refused.value.param == "translate_to"
