"""A finished transcript in each response_format: pure rendering of segments, no I/O.

Shapes are OpenAI's (openai-openapi, CreateTranscriptionResponseJson and ...VerboseJson); an optional key that does not
apply is left out, never null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from audioproto.languages import NAMES
from audioproto.worker import Segment

FORMATS = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain",
    "srt": "text/plain",
    "vtt": "text/vtt",
}
"""response_format to content type. Never JSON for a plain one: the Node SDK parses by content type."""


def render(
    response_format: str, segments: Sequence[Segment], language: str, duration_s: float, granularities: Sequence[str]
) -> bytes:
    """The body. `language` is an ISO 639-1 code, or empty where nothing was said; `granularities` of verbose_json."""
    text = "".join(segment.text for segment in segments).strip()
    match response_format:
        case "text":
            return f"{text}\n".encode()
        case "srt":
            return "".join(_cue(segment, ",", f"{n}\n") for n, segment in enumerate(segments, 1)).encode()
        case "vtt":
            return ("WEBVTT\n\n" + "".join(_cue(segment, ".", "") for segment in segments)).encode()
        case "json":
            return msgspec.json.encode({"text": text, "usage": _usage(duration_s)})
        case _:
            body: dict[str, object] = {
                "task": "transcribe",
                "language": NAMES.get(language, language),
                "duration": round(duration_s, 3),
                "text": text,
            }
            if "segment" in granularities:
                body["segments"] = [_segment(n, segment) for n, segment in enumerate(segments)]
            if "word" in granularities:
                body["words"] = [
                    {"word": word.word.strip(), "start": round(word.start, 3), "end": round(word.end, 3)}
                    for segment in segments
                    for word in segment.words
                ]
            return msgspec.json.encode(body | {"usage": _usage(duration_s)})


def _usage(duration_s: float) -> dict[str, object]:
    return {"type": "duration", "seconds": math.ceil(duration_s)}


def _segment(number: int, segment: Segment) -> dict[str, object]:
    return {
        "id": number,
        "seek": segment.seek,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _cue(segment: Segment, point: str, head: str) -> str:
    # A blank line would end the cue, and "-->" would look like another.
    text = " ".join(segment.text.replace("-->", "->").split())
    return f"{head}{_clock(segment.start, point)} --> {_clock(segment.end, point)}\n{text}\n\n"


def _clock(seconds: float, point: str) -> str:
    """HH:MM:SS.mmm, with `point` before the milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"
