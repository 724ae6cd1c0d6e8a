"""The bodies that clients parse: OpenAI's shapes, and subtitles that a player reads."""

from __future__ import annotations

import json

import pytest

from audiod.api.transcripts import FORMATS, render
from audioproto.worker import Segment, Word

SEGMENTS = [
    Segment(1, 0.0, 2.5, " And so,", words=[Word(" And", 0.0, 0.5, 0.9), Word(" so,", 0.5, 2.5, 0.9)]),
    Segment(1, 3661.5, 3662.0, " a --> b\n\nand c."),
]


def rendered(response_format: str, segments: list[Segment] = SEGMENTS, *granularities: str) -> str:
    return render(response_format, segments, "en", 3662.0004, granularities or ("segment",)).decode()


def test_json_has_the_text_and_the_billed_seconds() -> None:
    expected = {"text": "And so, a --> b\n\nand c.", "usage": {"type": "duration", "seconds": 3663}}
    assert json.loads(rendered("json")) == expected


def test_verbose_json_has_ten_fields_for_each_segment_and_no_null() -> None:
    body = json.loads(rendered("verbose_json"))
    assert list(body) == ["task", "language", "duration", "text", "segments", "usage"]
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "english", 3662.0)
    assert len(body["segments"][0]) == 10
    assert "null" not in rendered("verbose_json")


def test_words_are_there_when_asked_for_and_segments_only_then() -> None:
    body = json.loads(rendered("verbose_json", SEGMENTS, "word"))
    assert body["words"] == [{"word": "And", "start": 0.0, "end": 0.5}, {"word": "so,", "start": 0.5, "end": 2.5}]
    assert "segments" not in body
    assert {"words", "segments"} <= set(json.loads(rendered("verbose_json", SEGMENTS, "word", "segment")))


def test_text_is_the_text_and_a_line_s_end() -> None:
    assert rendered("text", SEGMENTS[:1]) == "And so,\n"


def test_subtitles_count_from_one_pass_the_hour_and_cannot_be_broken_by_the_words() -> None:
    assert rendered("srt") == (
        "1\n00:00:00,000 --> 00:00:02,500\nAnd so,\n\n2\n01:01:01,500 --> 01:01:02,000\na -> b and c.\n\n"
    )
    assert rendered("vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nAnd so,\n\n01:01:01.500 --> 01:01:02.000\na -> b and c.\n\n"
    )


@pytest.mark.parametrize("response_format", FORMATS)
def test_silence_is_a_valid_answer_in_every_format(response_format: str) -> None:
    answer = rendered(response_format, [])
    if FORMATS[response_format] == "application/json":
        assert json.loads(answer)["text"] == ""
    else:
        assert answer in ("\n", "", "WEBVTT\n\n")
