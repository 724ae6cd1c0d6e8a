"""A transcript in each response_format, and as events: pure rendering of segments, no I/O. Cues are subtitles/'s.

Shapes are OpenAI's (openai-openapi, CreateTranscriptionResponseJson and ...VerboseJson, TranscriptText...Event); an
optional key that does not apply is left out, never null.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Union

import msgspec
from msgspec import UNSET, UnsetType

from audiod.subtitles.render import srt, vtt
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

SUBTITLES = {"srt": srt, "vtt": vtt}
"""What writes cues in those that are subtitles."""

AUDIO_TOKENS_PER_S = 10
"""What OpenAI's models count for a second of speech; `usage` of streamed transcripts must be in tokens."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard. `language` is the code of what the segments are written in, or empty where nothing was said."""

    segments: Sequence[Segment]
    language: str
    duration_s: float
    task: Literal["transcribe", "translate"] = "transcribe"

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()


class UsageDuration(msgspec.Struct, tag_field="type", tag="duration"):
    """What was used, in seconds of audio, begun ones counted whole."""

    seconds: int


class InputTokens(msgspec.Struct):
    """What the input tokens were."""

    audio_tokens: int
    text_tokens: int = 0


class UsageTokens(msgspec.Struct, tag_field="type", tag="tokens"):
    """What was used, in tokens: ten for each second of audio, and those of the text."""

    input_tokens: int
    input_token_details: InputTokens
    output_tokens: int
    total_tokens: int


class TokenLogprob(msgspec.Struct):
    """A token as the model wrote it. `token` has replacement characters where it is part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class SpokenLanguage(msgspec.Struct):
    """A language that was recognised, by its ISO 639-1 code."""

    code: str


class Transcription(msgspec.Struct):
    """`response_format=json` of a transcription."""

    text: str
    usage: UsageDuration
    languages: list[SpokenLanguage]
    logprobs: Union[list[TokenLogprob], UnsetType] = UNSET


class Translation(msgspec.Struct):
    """`response_format=json` of a translation."""

    text: str


class TranscriptionSegment(msgspec.Struct):
    """One stretch of the transcript; times in seconds."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class TranscriptionWord(msgspec.Struct):
    """One word; times in seconds."""

    word: str
    start: float
    end: float
    estimated: Union[bool, UnsetType] = UNSET
    """Ours: true where the times are in proportion to the text, because no model could tell them."""


class TranscriptionVerbose(msgspec.Struct):
    """`response_format=verbose_json`. `language` is an English name; translations have neither words nor usage."""

    task: Literal["transcribe", "translate"]
    language: str
    duration: float
    text: str
    segments: Union[list[TranscriptionSegment], UnsetType] = UNSET
    words: Union[list[TranscriptionWord], UnsetType] = UNSET
    usage: Union[UsageDuration, UnsetType] = UNSET


class TranscriptTextDelta(msgspec.Struct, tag_field="type", tag="transcript.text.delta"):
    """The next words of a streamed transcript."""

    delta: str
    logprobs: Union[list[TokenLogprob], UnsetType] = UNSET


class TranscriptTextDone(msgspec.Struct, tag_field="type", tag="transcript.text.done"):
    """The whole of a streamed transcript: its deltas, one after another."""

    text: str
    usage: UsageTokens
    languages: list[SpokenLanguage]
    logprobs: Union[list[TokenLogprob], UnsetType] = UNSET


def render(
    response_format: str, transcript: Transcript, granularities: Sequence[str] = ("segment",), logprobs: bool = False
) -> bytes:
    """The body, if not of subtitles. `granularities` are verbose_json's; `logprobs` puts the segments' into json."""
    segments, is_translation = transcript.segments, transcript.task == "translate"
    match response_format:
        case "text":
            return f"{transcript.text}\n".encode()
        case "json" if is_translation:
            return msgspec.json.encode(Translation(transcript.text))
        case "json":
            languages = _languages(transcript.language)
            given = _logprobs(segments) if logprobs else UNSET
            return msgspec.json.encode(Transcription(transcript.text, _usage(transcript.duration_s), languages, given))
        case _:
            body = TranscriptionVerbose(
                transcript.task,
                NAMES.get(transcript.language, transcript.language),
                round(transcript.duration_s, 3),
                transcript.text,
                usage=UNSET if is_translation else _usage(transcript.duration_s),
            )
            if "segment" in granularities:
                body.segments = [_segment(n, segment) for n, segment in enumerate(segments)]
            if "word" in granularities:
                body.words = [
                    TranscriptionWord(
                        word.word.strip(), round(word.start, 3), round(word.end, 3), segment.words_estimated or UNSET
                    )
                    for segment in segments
                    for word in segment.words
                ]
            return msgspec.json.encode(body)


class Events:
    """A transcript as it grows, as events: the deltas, one after another, are the text of the last event.

    Unless a preview turned out wrong, which a model that got stuck may cause: then the last event's text counts.
    """

    def __init__(self, logprobs: bool = False) -> None:
        self._segments: list[Segment] = []
        self._begun = False
        self._space = ""
        """At the end of what has come, held back: it belongs to the text only if more comes."""
        self._previewed = ""
        """Of the segment to come."""
        self._wants_logprobs = logprobs

    def preview(self, text: str) -> Iterator[TranscriptTextDelta]:
        """The event for text of the segment to come."""
        self._previewed += text
        if delta := self._next(text):
            yield TranscriptTextDelta(delta)

    def add(self, segment: Segment) -> Iterator[TranscriptTextDelta]:
        """The event for a segment, if it brings any text that has not come yet."""
        self._segments.append(segment)
        previewed, self._previewed = self._previewed, ""
        come = segment.text[len(previewed) :] if segment.text.startswith(previewed) else ""
        if delta := self._next(come):
            yield TranscriptTextDelta(delta, _logprobs([segment]) if self._wants_logprobs else UNSET)

    def _next(self, text: str) -> str:
        come = self._space + text if self._begun else text.lstrip()
        delta = come.rstrip()
        self._space = come[len(delta) :]
        self._begun |= bool(delta)
        return delta

    def end(self, language: str, duration_s: float) -> Iterator[Union[TranscriptTextDelta, TranscriptTextDone]]:
        """The last events. Clients are promised a delta, so silence has one too."""
        if not self._begun:
            yield TranscriptTextDelta("")
        given, taken = math.ceil(duration_s * AUDIO_TOKENS_PER_S), sum(len(one.tokens) for one in self._segments)
        usage = UsageTokens(given, InputTokens(given), taken, given + taken)
        logprobs = _logprobs(self._segments) if self._wants_logprobs else UNSET
        text = Transcript(self._segments, language, duration_s).text
        yield TranscriptTextDone(text, usage, _languages(language), logprobs)


def _usage(duration_s: float) -> UsageDuration:
    return UsageDuration(math.ceil(duration_s))


def _languages(code: str) -> list[SpokenLanguage]:
    return [SpokenLanguage(code)] if code else []


def _logprobs(segments: Sequence[Segment]) -> list[TokenLogprob]:
    return [
        TokenLogprob(token.text.decode(errors="replace"), token.logprob, list(token.text))
        for segment in segments
        for token in segment.logprobs
    ]


def _segment(number: int, segment: Segment) -> TranscriptionSegment:
    return TranscriptionSegment(
        number,
        segment.seek,
        round(segment.start, 3),
        round(segment.end, 3),
        segment.text,
        segment.tokens,
        segment.temperature,
        segment.avg_logprob,
        segment.compression_ratio,
        segment.no_speech_prob,
    )
