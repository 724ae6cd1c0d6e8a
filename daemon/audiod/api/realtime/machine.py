"""A transcription session as a machine: what happens goes in, what is to be done comes out. Pure: no I/O, no clock.

It knows how much audio has been heard and where in it turns are, never the audio itself: positions are samples at
16 kHz since the session's first. The handler executes the instructions in their order.

A live turn's deltas come before it is committed, and so before its item is there, as OpenAI's models that hear live
have it ("deltas as speech arrives and a final transcript when your application commits"). With speech detection the
item's id is known from speech_started; without, the first delta names it, and `committed` is the next to do so. An
item that is added early would have to be taken back where the audio is cleared, and there is no event for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Union

from audiod.api.realtime.events import (
    Clear,
    Cleared,
    Commit,
    Committed,
    ErrorEvent,
    InvalidEvent,
    Item,
    ItemAdded,
    ItemDone,
    ServerEvent,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStartedEvent,
    SpeechStoppedEvent,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    TranscriptionPartial,
    error_detail,
    failure_detail,
)
from audiod.api.realtime.sessions import Check, Session, Transcription, updated
from audiod.api.transcripts import Events, TranscriptTextDelta, TranscriptTextDone, UsageDuration
from audiod.media.turns import SpeechStarted, SpeechStopped, TurnDetector
from audioproto.errors import AudiodError
from audioproto.types import PCM_RATE_IN
from audioproto.worker import Segment

SHORTEST_SAMPLES = PCM_RATE_IN // 10
"""A turn that a client commits has at least 100 ms, as OpenAI's."""

_SAMPLES_PER_MS = PCM_RATE_IN // 1000

# --- what happens, beside a client's events ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The client is there."""


@dataclass(frozen=True, slots=True)
class Listening:
    """What is heard from now on is heard with or without speech detection, as the session is set now."""


@dataclass(frozen=True, slots=True)
class AudioHeard:
    """More audio, and the speech probabilities of the frames (media/turns.py) that it completes."""

    samples: int
    speech: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Recognised:
    """More of a turn's transcript."""

    item_id: str
    segment: Segment


@dataclass(frozen=True, slots=True)
class Guessed:
    """How a live turn's transcript may go on, in place of what was guessed before."""

    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class RecognitionEnded:
    """A turn's transcript is complete, in a `language` (its code), or it failed."""

    item_id: str
    language: str = ""
    error: AudiodError | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that the client sent could not be taken; `event_id` is the client's."""

    error: AudiodError | InvalidEvent
    event_id: str | None = None


Happening = Union[
    SessionUpdate, Commit, Clear, Opened, Listening, AudioHeard, Recognised, Guessed, RecognitionEnded, Refused
]

# --- what is to be done -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    event: ServerEvent


@dataclass(frozen=True, slots=True)
class Recognise:
    """Transcribe the audio from `start` to `end`; what comes of it is told by Recognised and RecognitionEnded."""

    item_id: str
    start: int
    end: int
    how: Transcription
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Follow:
    """Transcribe the turn that begins at `start` while it is spoken; Recognise says where it ends, with the same `how`.

    What comes of it is told by Recognised and Guessed.
    """

    item_id: str
    start: int
    how: Transcription


@dataclass(frozen=True, slots=True)
class Abandon:
    """The turn that was to be followed will not end: nothing is to be told of it any more."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The audio before this sample is needed no more."""

    before: int


Instruction = Union[Send, Recognise, Follow, Abandon, Forget]


@dataclass(slots=True)
class _Transcript:
    seconds: float
    events: Events
    begun: bool = False
    """Something of it has been sent."""


class TranscriptionMachine:
    """One session. `new_id` gives unique ids with a prefix; the other arguments are those of sessions.updated."""

    def __init__(
        self,
        session: Session,
        new_id: Callable[[str], str],
        default_model: str,
        check: Check,
    ) -> None:
        self.session = session
        self._new_id = new_id
        self._default_model = default_model
        self._check = check
        self._heard = 0
        self._start = 0
        """Of the audio that is in no turn yet; of the turn, while there is speech."""
        self._detector: TurnDetector | None = None
        self._speaking = ""
        """The item that the speech being heard will be."""
        self._followed: Transcription | None = None
        """How that item is transcribed already, and will be to its end."""
        self._previous: str | None = None
        self._transcripts: dict[str, _Transcript] = {}

    @property
    def kept_samples(self) -> int:
        """Audio that is in no turn yet."""
        return self._heard - self._start

    def has_said(self, item_id: str) -> bool:
        """Whether the client has had any of the item's transcript."""
        return self._transcripts[item_id].begun

    def handle(self, happening: Happening) -> list[Instruction]:
        """What is to be done about it, in this order."""
        match happening:
            case AudioHeard():
                return self._hear(happening)
            case Recognised(item_id, segment):
                return self._recognised(item_id, segment)
            case Guessed(item_id, text):
                return [Send(TranscriptionPartial(event_id=self._event(), item_id=item_id, text=text))]
            case RecognitionEnded():
                return self._ended(happening)
            case Commit():
                return self._commit_by_hand(happening)
            case Clear():
                abandoned = self._abandon()
                self._begin_anew(self._heard)
                return [*abandoned, Forget(self._heard), Send(Cleared(event_id=self._event()))]
            case SessionUpdate():
                return self._update(happening)
            case Listening():
                return self._listen()
            case Opened():
                return [Send(SessionCreated(event_id=self._event(), session=self.session))]
            case Refused(error, event_id):
                return [self._refuse(error, event_id)]

    def _event(self) -> str:
        return self._new_id("event")

    def _refuse(self, error: AudiodError | InvalidEvent, event_id: str | None) -> Send:
        return Send(ErrorEvent(event_id=self._event(), error=error_detail(error, event_id)))

    def _update(self, event: SessionUpdate) -> list[Instruction]:
        try:
            self.session = updated(self.session, event.session, self._default_model, self._check)
        except AudiodError as error:
            return [self._refuse(error, event.event_id)]
        turns = self.session.turns
        if turns is None:
            self._detector = None
            if not self._followed:
                self._speaking = ""
        elif self._detector is not None:
            self._detector.settings = turns
        return [Send(SessionUpdated(event_id=self._event(), session=self.session))]

    # --- turns --------------------------------------------------------------------------------------------------------

    def _hear(self, heard: AudioHeard) -> list[Instruction]:
        self._heard += heard.samples
        detector = self._detector
        if detector is None:
            is_begun = bool(self._speaking) or self.session.turns is not None or self.kept_samples == 0
            return [] if is_begun else self._follow()
        done: list[Instruction] = []
        for probability in heard.speech:
            match detector.hear(probability):
                case SpeechStarted(at):
                    self._speaking, self._start = self._new_id("item"), at
                    milliseconds = at // _SAMPLES_PER_MS
                    started = SpeechStartedEvent(
                        event_id=self._event(), audio_start_ms=milliseconds, item_id=self._speaking
                    )
                    done += [Send(started), *self._follow()]
                case SpeechStopped(at):
                    milliseconds = at // _SAMPLES_PER_MS
                    stopped = SpeechStoppedEvent(
                        event_id=self._event(), audio_end_ms=milliseconds, item_id=self._speaking
                    )
                    done += [Send(stopped), *self._commit(self._speaking, at)]
        if not self._speaking and detector.horizon > self._start:
            self._start = detector.horizon
            done.append(Forget(self._start))
        return done

    def _listen(self) -> list[Instruction]:
        """A turn that is followed goes on where the client ends turns; else it is over, as all that had begun."""
        turns = self.session.turns
        if turns is None:
            self._detector = None
            if not self._followed:
                self._speaking = ""
            return []
        abandoned = self._abandon()
        self._speaking = ""
        self._detector = TurnDetector(turns, self._heard, self._start)
        return abandoned

    def _follow(self) -> list[Instruction]:
        """The turn that begins is live, if that is asked for."""
        how = self.session.audio.input.transcription
        if how is None or not how.hearing_intervals:
            return []
        self._speaking, self._followed = self._speaking or self._new_id("item"), how
        self._transcripts[self._speaking] = _Transcript(0.0, Events())
        return [Follow(self._speaking, self._start, how)]

    def _abandon(self) -> list[Instruction]:
        if not self._followed:
            return []
        self._followed = None
        del self._transcripts[self._speaking]
        return [Abandon(self._speaking)]

    def _commit_by_hand(self, event: Commit) -> list[Instruction]:
        if self.kept_samples < SHORTEST_SAMPLES:
            error = InvalidEvent(
                "the input audio buffer cannot be committed: it is too small, "
                f"{self.kept_samples / _SAMPLES_PER_MS:.2f} ms of at least 100 ms of audio",
                "input_audio_buffer_commit_empty",
            )
            return [self._refuse(error, event.event_id)]
        return self._commit(self._speaking or self._new_id("item"), self._heard)

    def _commit(self, item_id: str, end: int) -> list[Instruction]:
        """The audio up to `end` becomes an item."""
        start, previous, followed = self._start, self._previous, self._followed
        self._previous = item_id
        self._begin_anew(end)
        item = Item(item_id)
        done: list[Instruction] = [
            Send(Committed(event_id=self._event(), item_id=item_id, previous_item_id=previous)),
            Send(ItemAdded(event_id=self._event(), item=item, previous_item_id=previous)),
            Send(ItemDone(event_id=self._event(), item=item, previous_item_id=previous)),
        ]
        seconds = (end - start) / PCM_RATE_IN
        if followed:
            self._transcripts[item_id].seconds = seconds
            done.append(Recognise(item_id, start, end, followed))
        elif how := self.session.audio.input.transcription:
            logprobs = bool(self.session.include)
            self._transcripts[item_id] = _Transcript(seconds, Events(logprobs))
            done.append(Recognise(item_id, start, end, how, logprobs))
        return [*done, Forget(end)]

    def _begin_anew(self, at: int) -> None:
        self._start = at
        self._speaking, self._followed = "", None
        if self._detector is not None:
            self._detector.restart(at)

    # --- transcripts --------------------------------------------------------------------------------------------------

    def _recognised(self, item_id: str, segment: Segment) -> list[Instruction]:
        transcript = self._transcripts[item_id]
        deltas = [self._delta(item_id, delta) for delta in transcript.events.add(segment)]
        transcript.begun |= bool(deltas)
        return [Send(delta) for delta in deltas]

    def _delta(self, item_id: str, delta: TranscriptTextDelta) -> TranscriptionDelta:
        return TranscriptionDelta(event_id=self._event(), item_id=item_id, delta=delta.delta, logprobs=delta.logprobs)

    def _ended(self, ended: RecognitionEnded) -> list[Instruction]:
        transcript = self._transcripts.pop(ended.item_id)
        if ended.error is not None:
            error = failure_detail(ended.error)
            return [Send(TranscriptionFailed(event_id=self._event(), item_id=ended.item_id, error=error))]
        *_, done = transcript.events.end(ended.language, transcript.seconds)
        assert isinstance(done, TranscriptTextDone)
        completed = TranscriptionCompleted(
            event_id=self._event(),
            item_id=ended.item_id,
            transcript=done.text,
            usage=UsageDuration(math.ceil(transcript.seconds)),
            languages=done.languages,
            logprobs=done.logprobs,
        )
        return [Send(completed)]
