"""Lines break where a reader would have them break, in scripts with spaces and in those without."""

from __future__ import annotations

import pytest

from audiod.subtitles.characters import columns
from audiod.subtitles.lines import arrange, cut, joined
from audiod.subtitles.timing import time_characters
from audioproto.worker import Segment


def units(text: str, latin_columns: int = 42, cjk_columns: int = 32) -> list[str]:
    timed = time_characters([Segment(0, 0.0, 10.0, text)], 10_000)
    return [unit.text for unit in cut(timed, latin_columns, cjk_columns)]


def two_lines(text: str, most_columns: int) -> tuple[str, ...]:
    return arrange(cut(time_characters([Segment(0, 0.0, 10.0, text)], 10_000), 42, 32), most_columns)


@pytest.mark.parametrize(
    ("text", "width"), [("abc", 3), ("汉字", 4), ("ﾃｽﾄ", 3), ("Ａ！", 4), ("e\u0301", 1), ("한글", 4), ("", 0)]
)
def test_cjk_is_two_columns_wide_and_a_mark_none(text: str, width: int) -> None:
    assert columns(text) == width


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a well-known fact", ["a", "well-known", "fact"]),
        ("语音识别", ["语", "音", "识", "别"]),
        ("用Python写3.14", ["用", "Python", "写", "3.14"]),
        ("用 Python 写", ["用", "Python", "写"]),
        ("他说：「好。」然后走了", ["他", "说：", "「好。」", "然", "后", "走", "了"]),
        ("他说“好”（真的）！", ["他", "说", "“好”", "（真", "的）！"]),
        ("まっすぐデータ", ["まっ", "す", "ぐ", "デー", "タ"]),
        ("時々々、", ["時々々、"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("约50%的人", ["约", "50%", "的", "人"]),
        ("价格￥300元", ["价", "格", "￥300", "元"]),
        ("1\u00a0000 €", ["1\u00a0000", "€"]),
        ("葛\U000e0100城", ["葛\U000e0100", "城"]),
        ("好👩‍👩‍👧好", ["好", "👩‍👩‍👧", "好"]),
        ("真的……好", ["真", "的……", "好"]),
    ],
)
def test_what_belongs_together_stays_together(text: str, expected: list[str]) -> None:
    assert units(text) == expected


def test_a_word_that_is_too_long_is_cut_between_characters() -> None:
    assert units("abcdefgh", latin_columns=3) == ["abc", "def", "gh"]
    assert units("한국어", cjk_columns=4) == ["한국", "어"]
    assert units("e\u0301e\u0301e\u0301", latin_columns=2) == ["e\u0301e\u0301", "e\u0301"]


@pytest.mark.parametrize("text", ["用 Python 写，快\u3000真的 快", "a b c", "(a) 'b'"])
def test_spaces_come_back_as_they_were(text: str) -> None:
    timed = time_characters([Segment(0, 0.0, 10.0, text)], 10_000)
    assert joined(cut(timed, 42, 32)) == text


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("It fits on one line, so be it.", 42, ("It fits on one line, so be it.",)),
        (
            "Good morning, and welcome to the show about trains.",
            42,
            ("Good morning,", "and welcome to the show about trains."),
        ),
        (
            "recognition for twenty years and today she sings",
            42,
            ("recognition for twenty years", "and today she sings"),
        ),
        ("I gave her the book of the old man", 20, ("I gave her the book", "of the old man")),
        ("如果你想试一试，请先安装再下载。", 20, ("如果你想试一试，", "请先安装再下载。")),
        ("今天我们来聊一聊 Qwen 的部署", 20, ("今天我们来聊一聊", "Qwen 的部署")),
        ("このモデルは小さなメモリしかないカードでも動く", 28, ("このモデルは小さな", "メモリしかないカードでも動く")),
        ("这是我们大家的家乡和土地", 14, ("这是我们大家的", "家乡和土地")),
    ],
)
def test_two_lines_are_even_and_end_well(text: str, most: int, expected: tuple[str, ...]) -> None:
    assert two_lines(text, most) == expected


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("Dr. Smith came. Then J. R. R. spoke.", ["came.", "spoke."]),
        ("What? he said. 3.5 is it.", ["said.", "it."]),
        ("“好！”他走了。再见", ["“好！”", "了。"]),
        ("wait... no. (Yes.) Go", ["no.", "(Yes.)"]),
    ],
)
def test_a_sentence_ends_where_a_reader_sees_its_end(text: str, ends: list[str]) -> None:
    timed = time_characters([Segment(0, 0.0, 10.0, text)], 10_000)
    assert [unit.text for unit in cut(timed, 42, 32) if unit.ends_sentence] == ends
