"""Widths, sizes, times and tables: what fits on 80 columns, in any language, and what a hostile name cannot do."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioctl import output
from audioctl.output import Cell, Column, Output
from audioproto.errors import ErrorBody, ModelFailed, ModelNotFound

TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("音声合成ａｂ한국e\u0301…\x1b\t"), max_size=60
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(width: int = 80) -> Output:
    return Output(io.StringIO(), io.StringIO(), environment={"COLUMNS": str(width)})


def test_display_width_counts_cells_and_not_characters() -> None:
    assert output.display_width("audio") == 5
    assert output.display_width("音声") == 4
    assert output.display_width("ａ") == 2
    assert output.display_width("e\u0301") == 1
    assert output.display_width("한국") == 4


@given(TEXT, st.integers(0, 40))
def test_fitted_text_is_never_wider_and_only_changed_where_it_was_too_wide(text: str, width: int) -> None:
    fitted = output.fit(text, width)
    assert output.display_width(fitted) <= width
    assert (fitted == text) == (output.display_width(text) <= width)


@given(TEXT)
def test_cleaned_text_is_one_line_that_cannot_steer_a_terminal(text: str) -> None:
    cleaned = output.clean(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f]", cleaned)
    assert output.clean(cleaned) == cleaned


def test_cleaning_drops_colours_and_shows_every_other_escape() -> None:
    assert output.clean("\x1b[1;31mred\x1b[0m") == "red"
    assert output.clean("\x1b[2Jgone\r\n") == "\\x1b[2Jgone\\r\\n"
    assert output.clean("abc\u202etxt") == "abc\\u202etxt"
    assert output.clean("音声　モデル") == "音声　モデル"


@given(st.lists(st.tuples(TEXT, TEXT, st.integers(0, 10**6).map(str)), max_size=6), st.integers(30, 120))
def test_a_table_fits_where_its_text_may_be_cut(rows: list[tuple[str, str, str]], width: int) -> None:
    columns = (Column("NAME", least=4), Column("OTHER", least=5), Column("PID", right=True))
    lines = plain(width).table(columns, rows)
    assert len(lines) == len(rows) + 1
    assert max(map(output.display_width, lines)) <= width


def test_a_table_keeps_whole_names_where_a_pipe_reads_it() -> None:
    name = "a-model-with-a-name-" * 8
    piped = Output(io.StringIO(), io.StringIO(), environment={})
    assert name in piped.table((Column("MODEL", least=8), Column("STATE")), [(name, "ready")])[1]


def test_a_table_cuts_the_widest_column_first() -> None:
    columns = (Column("A", least=1), Column("B", least=1))
    assert plain(12).table(columns, [("short", "much longer than that")])[1] == "short much …"


def test_columns_line_up_in_cells_under_wide_characters() -> None:
    lines = plain().table((Column("MODEL"), Column("STATE")), [("語り手", "ready"), ("whisper", "parked")])
    starts = {
        output.display_width(line[: line.index(word)])
        for line, word in zip(lines, ("STATE", "ready", "parked"), strict=True)
    }
    assert len(starts) == 1


@given(st.integers(0, 2**49))
def test_a_size_takes_at_most_nine_cells(size_bytes: int) -> None:
    assert len(output.size(size_bytes)) <= 9


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (350 * 2**20, "350 MiB"),
        (int(5.75 * 2**30), "5.75 GiB"),
        (2**42, "4 TiB"),
    ],
)
def test_a_size_is_shown_to_three_figures(size_bytes: int, shown: str) -> None:
    assert output.size(size_bytes) == shown


@given(st.floats(0, 9e6))
def test_a_duration_takes_at_most_six_cells(seconds: float) -> None:
    assert len(output.duration(seconds)) <= 6


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0s"), (-1e-9, "0.0s"), (9.96, "10s"), (59.6, "1m00s"), (245, "4m05s"), (12000, "3h20m"), (187200, "2d04h")],
)
def test_a_duration_has_two_units(seconds: float, shown: str) -> None:
    assert output.duration(seconds) == shown


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_bar_has_one_width(part: int, whole: int) -> None:
    assert re.fullmatch(r"\[#*-*\]", output.bar(part, whole))
    assert len(output.bar(part, whole)) == 22


def test_colours_are_for_terminals_and_only_where_wanted() -> None:
    def coloured(stream: io.StringIO, environment: dict[str, str]) -> bool:
        return "\x1b[" in Output(stream, io.StringIO(), environment=environment).paint("ready", "green")

    assert coloured(Terminal(), {"TERM": "xterm"})
    assert coloured(Terminal(), {"NO_COLOR": ""})
    assert not coloured(Terminal(), {"NO_COLOR": "1"})
    assert not coloured(Terminal(), {"TERM": "dumb"})
    assert not coloured(io.StringIO(), {})


def test_a_coloured_table_lines_up_like_a_plain_one() -> None:
    columns = (Column("STATE"), Column("N", right=True))
    rows = [(Cell("ready", "green"), "1"), (Cell("failed", "red"), "22")]
    painted = Output(Terminal(), io.StringIO(), environment={"COLUMNS": "80"}).table(columns, rows)
    assert "\x1b[32mready\x1b[0m" in painted[1]
    assert [re.sub("\x1b\\[[0-9]*m", "", line) for line in painted] == plain().table(columns, rows)


def test_an_error_names_the_next_command() -> None:
    out = plain()
    error = ModelFailed("whisper-base could not be loaded", hint="audioctl load whisper-base", retry_after_s=30)
    out.error(error)
    assert out._stderr.getvalue() == (  # type: ignore[attr-defined]
        "audioctl: whisper-base could not be loaded\n  try again in 30s\n  try: audioctl load whisper-base\n"
    )


def test_an_error_in_json_carries_all_of_it() -> None:
    out = plain()
    out.json = True
    out.error(ModelNotFound("there is no model x", hint="audioctl models", param="model"), "x")
    written = msgspec.json.decode(out._stderr.getvalue())  # type: ignore[attr-defined]
    assert written["subject"] == "x"
    assert msgspec.convert(written["error"], ErrorBody) == ErrorBody(
        "model_not_found", "there is no model x", hint="audioctl models", param="model"
    )


def test_a_redrawn_page_replaces_the_one_before_on_a_terminal() -> None:
    terminal = Terminal()
    Output(terminal, io.StringIO(), environment={}).redraw(["one", "two"])
    assert terminal.getvalue() == "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[J"


def test_a_redrawn_page_follows_the_one_before_in_a_pipe() -> None:
    pipe = io.StringIO()
    Output(pipe, io.StringIO(), environment={}).redraw(["one"])
    assert pipe.getvalue() == "one\n\n"
