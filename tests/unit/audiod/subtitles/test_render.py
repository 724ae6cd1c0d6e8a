"""SubRip and WebVTT as written down, and as FFmpeg reads them."""

from __future__ import annotations

import html
import io
import re

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiod.subtitles.cues import Cue, make
from audiod.subtitles.render import srt, vtt
from audioproto.worker import Segment, Word

CUES = [Cue(0, 1500, ("Fish & chips,",)), Cue(3_661_001, 360_000_000, ("<b> ---> c", "1984"))]


def test_subrip_is_numbered_with_a_comma_before_the_milliseconds() -> None:
    assert srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:01,500\nFish & chips,\n\n2\n01:01:01,001 --> 100:00:00,000\n<b> -> c\n1984\n\n"
    )
    assert srt([]) == ""


def test_webvtt_has_a_head_and_escapes() -> None:
    assert vtt(CUES) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nFish &amp; chips,\n\n"
        "01:01:01.001 --> 100:00:00.000\n&lt;b&gt; ---&gt; c\n1984\n\n"
    )
    assert vtt([]) == "WEBVTT\n\n"


def read(rendered: str, form: str) -> list[tuple[int, int, str]]:
    """Start and end in milliseconds, and text, of each cue as FFmpeg's demuxer finds it."""
    with av.open(io.BytesIO(rendered.encode()), "r", format=form) as container:
        return [
            (packet.pts, packet.pts + (packet.duration or 0), bytes(packet).decode())
            for packet in container.demux(subtitles=0)
            if packet.pts is not None
        ]


TEXT = st.text(max_size=50) | st.text(st.sampled_from("a1<>&-;中。 \r\n\u2028\u0085{}\\/'\""), max_size=60)


@pytest.mark.parametrize("form", ["srt", "webvtt"])
@settings(deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
def test_an_independent_reader_finds_every_cue_as_it_was(form: str, texts: list[str]) -> None:
    cues = make([Segment(0, float(n), n + 0.9, text) for n, text in enumerate(texts)], 10.0)
    if not cues:
        return
    file = (srt if form == "srt" else vtt)(cues)
    assert file.splitlines() == file.split("\n")[:-1], "no character that some reader takes for a line's end"
    found = read(file, form)
    assert [(start, end) for start, end, _ in found] == [(cue.start_ms, cue.end_ms) for cue in cues]
    for (_, _, text), cue in zip(found, cues, strict=True):
        expected = "\n".join(cue.lines)
        assert (re.sub("-{2,}>", "->", expected) if form == "srt" else expected) == (
            text if form == "srt" else html.unescape(text)
        )


def test_a_speech_as_whisper_hears_it_reads_well() -> None:
    """Times of whisper-base for tests/data/audio/jfk.wav."""
    said = (
        "And 0.0 0.52 so 0.52 0.82 my 0.82 1.18 fellow 1.18 1.56 Americans, 1.56 2.1 ask 2.76 3.74 not 3.74 4.24 "
        "what 4.24 5.52 your 5.52 5.76 country 5.76 6.24 can 6.24 6.6 do 6.6 6.82 for 6.82 7.08 you, 7.08 7.38 "
        "ask 7.96 8.46 what 8.46 8.76 you 8.76 9.04 can 9.04 9.32 do 9.32 9.56 for 9.56 9.78 your 9.78 9.94 "
        "country. 9.94 10.36"
    )
    heard = said.split()
    words = [Word(f" {heard[n]}", float(heard[n + 1]), float(heard[n + 2])) for n in range(0, len(heard), 3)]
    segment = Segment(0, 0.0, 10.36, "".join(word.word for word in words), words=words)
    assert srt(make([segment], 11.0)) == (
        "1\n00:00:00,000 --> 00:00:02,100\nAnd so my fellow Americans,\n\n"
        "2\n00:00:02,760 --> 00:00:07,877\nask not what your country can do for you,\n\n"
        "3\n00:00:07,960 --> 00:00:10,360\nask what you can do for your country.\n\n"
    )
