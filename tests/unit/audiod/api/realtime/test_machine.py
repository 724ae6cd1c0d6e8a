"""A session's events in their order, and what holds whatever happens in whatever order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from audiod.api.realtime.events import (
    Clear,
    Commit,
    Committed,
    ErrorEvent,
    InvalidEvent,
    ItemAdded,
    ServerEvent,
    SessionUpdate,
    SessionUpdated,
    SpeechStartedEvent,
    SpeechStoppedEvent,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    TranscriptionPartial,
)
from audiod.api.realtime.machine import (
    SHORTEST_SAMPLES,
    Abandon,
    AudioHeard,
    Follow,
    Forget,
    Guessed,
    Happening,
    Instruction,
    Listening,
    Opened,
    Recognise,
    Recognised,
    RecognitionEnded,
    Refused,
    Send,
    TranscriptionMachine,
)
from audiod.api.realtime.sessions import Session, Transcription, with_transcription
from audiod.media.turns import FRAME_SAMPLES
from audioproto.errors import BadRequest, EngineFailed, ModelNotFound
from audioproto.worker import Segment

SPEECH, SILENCE = 0.9, 0.05
SECOND = 16_000


def check(how: Transcription, logprobs: bool) -> None:
    if how.model != "known":
        raise ModelNotFound(f"there is no model {how.model!r}", param="model")


def said(item_id: str, text: str) -> Recognised:
    return Recognised(item_id, Segment(0, 0.0, 1.0, text))


def machine(**sound: object) -> TranscriptionMachine:
    numbers = itertools.count(1)
    session = with_transcription(Session("sess_1", 0), Transcription("known"))
    made = TranscriptionMachine(session, lambda prefix: f"{prefix}_{next(numbers)}", "known", check)
    if sound:
        made.handle(SessionUpdate(session={"audio": {"input": sound}}))
    made.handle(Listening())
    return made


def frames(*probabilities: float) -> AudioHeard:
    return AudioHeard(len(probabilities) * FRAME_SAMPLES, probabilities)


def sent(done: Sequence[Instruction]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(msgspec.json.encode(step.event)) for step in done if isinstance(step, Send)]


def types(done: Sequence[Instruction]) -> list[str]:
    return [event["type"] for event in sent(done)]


def test_the_session_is_shown_first() -> None:
    (created,) = sent(machine().handle(Opened()))
    assert (created["type"], created["session"]["id"]) == ("session.created", "sess_1")


def test_a_turn_by_hand_from_commit_to_transcript() -> None:
    session = machine(turn_detection=None)
    assert session.handle(AudioHeard(SECOND)) == []
    done = session.handle(Commit())
    committed, added, finished = sent(done)
    item = {
        "id": committed["item_id"],
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    assert committed["previous_item_id"] is None
    assert (added["type"], added["item"]) == ("conversation.item.added", item)
    assert (finished["type"], finished["item"]) == ("conversation.item.done", item)
    assert done[3:] == [Recognise(item["id"], 0, SECOND, Transcription("known")), Forget(SECOND)]
    (delta,) = sent(session.handle(said(item["id"], " And so ")))
    assert delta["delta"] == "And so"
    (delta,) = sent(session.handle(said(item["id"], " my fellow Americans.")))
    assert delta["delta"] == "  my fellow Americans."
    (completed,) = sent(session.handle(RecognitionEnded(item["id"], "en")))
    assert completed == {
        "type": "conversation.item.input_audio_transcription.completed",
        "event_id": completed["event_id"],
        "item_id": item["id"],
        "content_index": 0,
        "transcript": "And so  my fellow Americans.",
        "usage": {"type": "duration", "seconds": 1},
        "languages": [{"code": "en"}],
    }


def test_a_turn_by_speech_detection_is_one_item_throughout() -> None:
    session = machine(turn_detection={"type": "server_vad", "silence_duration_ms": 320, "prefix_padding_ms": 32})
    assert types(session.handle(frames(*[SILENCE] * 10))) == []
    (started,) = sent(session.handle(frames(SPEECH, SPEECH, SPEECH)))
    assert (started["type"], started["audio_start_ms"]) == ("input_audio_buffer.speech_started", 9 * 32)
    done = session.handle(frames(*[SILENCE] * 15))
    assert types(done) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    stopped, committed, *_ = sent(done)
    assert stopped["audio_end_ms"] == (13 + 10) * 32
    assert stopped["item_id"] == committed["item_id"] == started["item_id"]
    assert Recognise(started["item_id"], 9 * 512, 23 * 512, Transcription("known")) in done


def test_silence_is_not_kept() -> None:
    session = machine(turn_detection={"type": "server_vad", "prefix_padding_ms": 64})
    done = session.handle(frames(*[SILENCE] * 100))
    assert done == [Forget(98 * FRAME_SAMPLES)]
    assert session.kept_samples == 2 * FRAME_SAMPLES


def test_items_are_chained() -> None:
    session = machine(turn_detection=None)
    first, second = (
        next(e for e in sent([*session.handle(AudioHeard(SECOND)), *session.handle(Commit())])) for _ in range(2)
    )
    assert second["previous_item_id"] == first["item_id"] != second["item_id"]


@pytest.mark.parametrize("samples", [0, 1, SHORTEST_SAMPLES - 1])
def test_too_little_is_not_committed(samples: int) -> None:
    session = machine(turn_detection=None)
    session.handle(AudioHeard(samples))
    (error,) = sent(session.handle(Commit(event_id="mine")))
    assert error["type"] == "error"
    assert error["error"]["event_id"] == "mine"
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    session.handle(AudioHeard(SHORTEST_SAMPLES - samples))
    assert types(session.handle(Commit()))[0] == "input_audio_buffer.committed", "what was there is kept"


def test_clearing_forgets_the_audio_and_the_turn_that_had_begun() -> None:
    session = machine()
    session.handle(frames(SPEECH, SPEECH, SPEECH))
    done = session.handle(Clear())
    assert types(done) == ["input_audio_buffer.cleared"]
    assert Forget(3 * FRAME_SAMPLES) in done
    assert types(session.handle(frames(*[SILENCE] * 40))) == []
    session.handle(Clear())
    assert types(session.handle(Commit())) == ["error"]


def test_a_turn_committed_by_hand_while_there_is_speech_keeps_its_item() -> None:
    session = machine()
    (started,) = sent(session.handle(frames(*[SPEECH] * 10)))
    committed = sent(session.handle(Commit()))[0]
    assert committed["item_id"] == started["item_id"]
    assert types(session.handle(frames(*[SILENCE] * 40))) == [], "that turn is over"


def test_without_transcription_turns_are_only_committed() -> None:
    session = machine(turn_detection=None, transcription=None)
    session.handle(AudioHeard(SECOND))
    assert not any(isinstance(step, Recognise) for step in session.handle(Commit()))


def test_a_turn_is_transcribed_as_the_session_was_set_when_it_ended() -> None:
    session = machine(turn_detection=None)
    session.handle(SessionUpdate(session={"audio": {"input": {"transcription": {"language": "de"}}}}))
    session.handle(AudioHeard(SECOND))
    how = [step.how for step in session.handle(Commit()) if isinstance(step, Recognise)]
    assert how == [Transcription("known", language="de")]


def test_silence_has_an_empty_transcript_and_no_deltas() -> None:
    session = machine(turn_detection=None)
    session.handle(AudioHeard(SECOND))
    item = sent(session.handle(Commit()))[0]["item_id"]
    assert session.handle(said(item, "  ")) == []
    assert not session.has_said(item)
    assert sent(session.handle(RecognitionEnded(item)))[0]["transcript"] == ""


def test_a_turn_that_fails_says_so_of_its_item() -> None:
    session = machine(turn_detection=None)
    session.handle(AudioHeard(SECOND))
    item = sent(session.handle(Commit()))[0]["item_id"]
    (failed,) = sent(session.handle(RecognitionEnded(item, error=EngineFailed("out of ideas"))))
    assert failed["type"] == "conversation.item.input_audio_transcription.failed"
    wanted = {"type": "server_error", "code": "engine_failed", "message": "out of ideas", "param": None}
    assert (failed["item_id"], failed["content_index"], failed["error"]) == (item, 0, wanted)


@pytest.mark.parametrize(
    ("error", "kind", "code", "event_id"),
    [
        (BadRequest("no", param="audio"), "invalid_request_error", "invalid_request", "mine"),
        (InvalidEvent("no", "invalid_value", "audio", "own"), "invalid_request_error", "invalid_value", "own"),
        (EngineFailed("no", param="audio"), "server_error", "engine_failed", "mine"),
    ],
)
def test_refusals_have_all_keys(error: BadRequest | InvalidEvent, kind: str, code: str, event_id: str) -> None:
    (event,) = sent(machine().handle(Refused(error, "mine")))
    wanted = {"type": kind, "code": code, "message": "no", "param": "audio", "event_id": event_id}
    assert event["error"] == wanted


def test_an_update_that_is_refused_changes_nothing() -> None:
    session = machine()
    before = session.session
    update: dict[str, object] = {"audio": {"input": {"turn_detection": None, "transcription": {"model": "no"}}}}
    assert types(session.handle(SessionUpdate(session=update))) == ["error"]
    assert session.session == before


LIVE = {"model": "known", "delay": "low"}


def test_a_live_turn_by_hand_begins_with_its_first_audio_and_is_told_of_before_it_is_committed() -> None:
    session = machine(turn_detection=None, transcription=LIVE)
    assert session.handle(AudioHeard(0)) == []
    (follow,) = session.handle(AudioHeard(SECOND))
    assert isinstance(follow, Follow)
    assert (follow.start, follow.how.delay) == (0, "low")
    assert session.handle(AudioHeard(SECOND)) == []
    (delta,) = sent(session.handle(said(follow.item_id, " And so")))
    assert (delta["delta"], delta["item_id"]) == ("And so", follow.item_id)
    (partial,) = sent(session.handle(Guessed(follow.item_id, " my")))
    assert partial == {
        "type": "conversation.item.input_audio_transcription.partial",
        "event_id": partial["event_id"],
        "item_id": follow.item_id,
        "content_index": 0,
        "text": " my",
    }
    done = session.handle(Commit())
    assert sent(done)[0]["item_id"] == follow.item_id
    assert Recognise(follow.item_id, 0, 2 * SECOND, follow.how) in done
    session.handle(said(follow.item_id, " my fellow"))
    (completed,) = sent(session.handle(RecognitionEnded(follow.item_id, "en")))
    assert (completed["transcript"], completed["usage"]["seconds"]) == ("And so my fellow", 2)
    (second,) = session.handle(AudioHeard(SECOND))
    assert isinstance(second, Follow)
    assert (second.start, second.item_id != follow.item_id) == (2 * SECOND, True)


def test_a_live_turn_by_speech_detection_is_known_from_speech_started() -> None:
    session = machine(transcription=LIVE)
    started, follow = session.handle(frames(SPEECH, SPEECH, SPEECH))
    assert isinstance(started, Send)
    assert isinstance(started.event, SpeechStartedEvent)
    assert follow == Follow(started.event.item_id, 0, Transcription("known", delay="low"))


def test_clearing_abandons_a_live_turn() -> None:
    session = machine(turn_detection=None, transcription=LIVE)
    (follow,) = session.handle(AudioHeard(SECOND))
    assert isinstance(follow, Follow)
    assert session.handle(Clear())[0] == Abandon(follow.item_id)
    assert types(session.handle(Clear())) == ["input_audio_buffer.cleared"], "once"


def test_a_live_turn_goes_on_as_it_began() -> None:
    session = machine(transcription=LIVE)
    _, follow = session.handle(frames(SPEECH, SPEECH, SPEECH))
    assert isinstance(follow, Follow)
    session.handle(SessionUpdate(session={"audio": {"input": {"turn_detection": None, "transcription": None}}}))
    assert session.handle(Listening()) == []
    session.handle(AudioHeard(SECOND))
    done = session.handle(Commit())
    assert [step.how for step in done if isinstance(step, Recognise)] == [follow.how]
    assert sent(done)[0]["item_id"] == follow.item_id


class Sessions(RuleBasedStateMachine):
    """Anything in any order: nothing is said twice, every turn is ordered, whole and answered once."""

    @initialize(detect=st.booleans())
    def begin(self, detect: bool) -> None:
        self.machine = machine(turn_detection={"type": "server_vad"} if detect else None)
        self.heard = 0
        self.forgotten = 0
        self.turn_end = 0
        self.seen: set[str] = set()
        self.speaking: str | None = None
        self.previous: str | None = None
        self.open: dict[str, str] = {}
        self.followed: Follow | None = None

    def do(self, happening: Happening) -> list[ServerEvent]:
        done = self.machine.handle(happening)
        for step in done:
            match step:
                case Forget(before):
                    assert self.forgotten <= before <= self.heard
                    self.forgotten = before
                case Follow(item_id, start):
                    assert self.followed is None
                    assert self.turn_end <= start <= self.heard
                    assert self.forgotten <= start, "its audio is still there"
                    self.followed = step
                    self.open[item_id] = ""
                case Abandon(item_id):
                    assert self.followed is not None
                    assert self.followed.item_id == item_id
                    self.followed = None
                    del self.open[item_id]
                case Recognise(item_id, start, end, how):
                    assert self.turn_end <= start < end <= self.heard
                    assert self.forgotten <= start, "its audio is still there"
                    self.turn_end = end
                    if self.followed is not None:
                        assert self.followed == Follow(item_id, start, how)
                        self.followed = None
                    else:
                        self.open[item_id] = ""
                case Send(event):
                    assert event.event_id not in self.seen
                    self.seen.add(event.event_id)
                    self.note(event)
        return [step.event for step in done if isinstance(step, Send)]

    def note(self, event: ServerEvent) -> None:
        match event:
            case SpeechStartedEvent():
                assert self.speaking is None
                assert event.audio_start_ms * 16 <= self.heard
                self.speaking = event.item_id
            case SpeechStoppedEvent():
                assert event.item_id == self.speaking
                assert event.audio_end_ms * 16 <= self.heard
            case Committed():
                assert event.item_id == (self.speaking or event.item_id)
                assert event.previous_item_id == self.previous != event.item_id
                self.previous, self.speaking = event.item_id, None
            case ItemAdded():
                assert event.item.id == self.previous
            case TranscriptionPartial():
                assert event.item_id in self.open
            case TranscriptionDelta():
                assert event.delta
                self.open[event.item_id] += event.delta
            case TranscriptionCompleted():
                assert event.transcript == self.open.pop(event.item_id), "the deltas are the transcript"
            case TranscriptionFailed():
                del self.open[event.item_id]

    @rule(probabilities=st.lists(st.sampled_from([SPEECH, SILENCE, 0.4]), max_size=40), lag=st.integers(0, 511))
    def hear(self, probabilities: list[float], lag: int) -> None:
        detects = self.machine.session.turns is not None
        samples = len(probabilities) * FRAME_SAMPLES
        self.heard += samples
        self.do(AudioHeard(samples, probabilities if detects else ()))

    @rule()
    def commit(self) -> None:
        kept = self.machine.kept_samples
        events = self.do(Commit(event_id="c"))
        assert isinstance(events[0], ErrorEvent if kept < SHORTEST_SAMPLES else Committed)

    @rule()
    def clear(self) -> None:
        self.do(Clear())
        self.speaking = None
        assert self.machine.kept_samples == 0

    @rule(
        keys=st.sampled_from(
            [
                {"turn_detection": None},
                {"turn_detection": {"type": "server_vad", "silence_duration_ms": 100}},
                {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}},
                {"transcription": None},
                {"transcription": {"model": "known"}},
                {"transcription": {"model": "known", "delay": "minimal"}},
                {"transcription": {"model": "known", "delay": None}},
                {"transcription": {"model": "unheard-of"}},
                {"format": {"type": "audio/pcmu"}},
            ]
        )
    )
    def update(self, keys: dict[str, object]) -> None:
        before = self.machine.session
        (event,) = self.do(SessionUpdate(session={"audio": {"input": keys}}))
        assert isinstance(event, SessionUpdated) == (keys.get("transcription") != {"model": "unheard-of"})
        if (before.format, before.turns is None) != (self.machine.session.format, self.machine.session.turns is None):
            self.do(Listening())  # as the handler does, which must have another ear
            self.speaking = None

    def ended(self) -> list[str]:
        """Items that may be done: not the one that is still being spoken."""
        return sorted(item for item in self.open if self.followed is None or item != self.followed.item_id)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), text=st.text(" ab", max_size=4))
    def recognise(self, data: st.DataObject, text: str) -> None:
        self.do(said(data.draw(st.sampled_from(sorted(self.open))), text))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), text=st.text(" ab", max_size=4))
    def guess(self, data: st.DataObject, text: str) -> None:
        self.do(Guessed(data.draw(st.sampled_from(sorted(self.open))), text))

    @precondition(lambda self: self.ended())
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        item_id = data.draw(st.sampled_from(self.ended()))
        self.do(RecognitionEnded(item_id, error=EngineFailed("no") if fails else None))
        assert item_id not in self.open


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
