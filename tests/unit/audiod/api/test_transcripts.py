"""The bodies that clients parse: OpenAI's shapes, subtitles that a player reads, and events that add up."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.api.transcripts import (
    FORMATS,
    SUBTITLES,
    Events,
    Transcript,
    TranscriptTextDelta,
    TranscriptTextDone,
    render,
)
from audiod.subtitles.cues import make
from audioproto.worker import Segment, Token, Word

SEGMENTS = [
    Segment(
        *(1, 0.0, 2.5, " And so,"),
        tokens=[50364, 400, 370, 11],
        words=[Word(" And", 0.0, 0.5, 0.9), Word(" so,", 0.5, 2.5, 0.9)],
        logprobs=[Token(b" And", -0.25), Token(b" so,", -0.5)],
    ),
    Segment(1, 3660.5, 3662.0, " a ---> b\n\nand c."),
]


def subtitled(response_format: str, segments: list[Segment]) -> str:
    return SUBTITLES[response_format](make(segments, 3662.0004))


def rendered(response_format: str, segments: list[Segment] = SEGMENTS, *granularities: str, **more: bool) -> str:
    transcript = Transcript(segments, "en" if segments else "", 3662.0004)
    return render(response_format, transcript, granularities or ("segment",), **more).decode()


def test_json_has_the_text_the_billed_seconds_and_the_language() -> None:
    assert json.loads(rendered("json")) == {
        "text": "And so, a ---> b\n\nand c.",
        "usage": {"type": "duration", "seconds": 3663},
        "languages": [{"code": "en"}],
    }
    assert json.loads(rendered("json", []))["languages"] == []


def test_json_has_log_probabilities_when_asked_for() -> None:
    odd = [Segment(1, 0, 1, "é", logprobs=[Token(b"\xc3", -1.0), Token(b"\xa9", -0.5)])]
    assert json.loads(rendered("json", odd, logprobs=True))["logprobs"] == [
        {"token": "\ufffd", "logprob": -1.0, "bytes": [0xC3]},
        {"token": "\ufffd", "logprob": -0.5, "bytes": [0xA9]},
    ]


def test_verbose_json_has_ten_fields_for_each_segment_and_no_null() -> None:
    body = json.loads(rendered("verbose_json"))
    assert set(body) == {"task", "language", "duration", "text", "segments", "usage"}
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "english", 3662.0)
    assert len(body["segments"][0]) == 10
    assert "null" not in rendered("verbose_json")


def test_words_are_there_when_asked_for_and_segments_only_then() -> None:
    body = json.loads(rendered("verbose_json", SEGMENTS, "word"))
    assert body["words"] == [{"word": "And", "start": 0.0, "end": 0.5}, {"word": "so,", "start": 0.5, "end": 2.5}]
    assert "segments" not in body
    assert {"words", "segments"} <= set(json.loads(rendered("verbose_json", SEGMENTS, "word", "segment")))


def test_a_translation_has_neither_usage_nor_words() -> None:
    transcript = Transcript(SEGMENTS, "zh", 3662.0, "translate")
    assert json.loads(render("json", transcript)) == {"text": transcript.text}
    body = json.loads(render("verbose_json", transcript))
    assert set(body) == {"task", "language", "duration", "text", "segments"}
    assert (body["task"], body["language"]) == ("translate", "chinese")


def test_text_is_the_text_and_a_line_s_end() -> None:
    assert rendered("text", SEGMENTS[:1]) == "And so,\n"


def test_subtitles_count_from_one_pass_the_hour_and_cannot_be_broken_by_the_words() -> None:
    assert subtitled("srt", SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:02,500\nAnd so,\n\n2\n01:01:00,500 --> 01:01:02,000\na -> b and c.\n\n"
    )
    assert subtitled("vtt", SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nAnd so,\n\n01:01:00.500 --> 01:01:02.000\na ---&gt; b and c.\n\n"
    )


def test_cues_whose_times_are_estimates_are_known() -> None:
    """The first segment has words, the second has none; a third has them, but nobody heard when."""
    third = Segment(1, 3000.0, 3001.0, " D.", words=[Word(" D.", 3000.0, 3001.0)], words_estimated=True)
    assert [cue.estimated for cue in make(SEGMENTS, 3662.0)] == [False, True]
    assert [cue.estimated for cue in make([SEGMENTS[0], third], 3662.0)] == [False, True]


def test_words_whose_times_are_estimates_are_marked() -> None:
    guessed = Segment(1, 0.0, 1.0, " A", words=[Word(" A", 0.0, 1.0)], words_estimated=True)
    body = json.loads(rendered("verbose_json", [guessed], "word"))
    assert body["words"] == [{"word": "A", "start": 0.0, "end": 1.0, "estimated": True}]


TEXTS = st.lists(st.text() | st.sampled_from(["-->", "---->", "\n\n", "1\n", "\x1e", "\ud800", " a", "b "]), max_size=5)


@given(TEXTS)
def test_whatever_was_said_subtitles_have_up_to_four_lines_and_a_blank_one_for_each_cue(texts: list[str]) -> None:
    file = subtitled("srt", [Segment(1, n, n + 0.5, text) for n, text in enumerate(texts)])
    assert re.fullmatch(r"(\d+\n[\d:,]{12} --> [\d:,]{12}\n(.*\S.*\n){1,2}\n)*", file)
    assert file.count("-->") == file.count("\n\n")
    numbers = [int(cue.split("\n")[0]) for cue in file.split("\n\n")[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert file.splitlines() == file.split("\n")[:-1], "no character that some reader takes for a line's end"


@given(TEXTS)
def test_deltas_add_up_to_the_text(texts: list[str]) -> None:
    segments = [Segment(1, n, n + 0.5, text, tokens=[1, 2]) for n, text in enumerate(texts)]
    events = Events()
    come = [delta.delta for segment in segments for delta in events.add(segment)]
    assert "" not in come
    *more, done = events.end("en", 1.23)
    assert isinstance(done, TranscriptTextDone)
    assert all(isinstance(one, TranscriptTextDelta) for one in more)
    assert bool(more) == (not come), "silence has a delta of its own"
    assert "".join(come) == done.text == Transcript(segments, "en", 1.23).text
    assert (done.usage.input_tokens, done.usage.output_tokens) == (13, 2 * len(texts))
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens


def test_a_preview_is_not_told_again_by_its_segment() -> None:
    events = Events()
    come = [delta.delta for text in ("And", " so", ", my ") for delta in events.preview(text)]
    come += [delta.delta for delta in events.add(Segment(1, 0, 1, "And so, my friends"))]
    come += [delta.delta for delta in events.preview(" ask")]
    come += [delta.delta for delta in events.add(Segment(1, 1, 2, " ask"))]
    (done,) = events.end("en", 2.0)
    assert isinstance(done, TranscriptTextDone)
    assert "".join(come) == done.text == "And so, my friends ask"


def test_where_a_preview_was_wrong_the_last_event_has_the_right_text() -> None:
    events = Events()
    come = [delta.delta for delta in events.preview("and and and")]
    come += [delta.delta for text in ("And so", " it goes") for delta in events.add(Segment(1, 0, 1, text))]
    *_, done = events.end("en", 2.0)
    assert isinstance(done, TranscriptTextDone)
    assert done.text == "And so it goes"
    assert come == ["and and and", " it goes"]


@pytest.mark.parametrize("response_format", FORMATS)
def test_silence_is_a_valid_answer_in_every_format(response_format: str) -> None:
    answer = subtitled(response_format, []) if response_format in SUBTITLES else rendered(response_format, [])
    if FORMATS[response_format] == "application/json":
        assert json.loads(answer)["text"] == ""
    else:
        assert answer in ("\n", "", "WEBVTT\n\n")
