"""Live turns against a running daemon: real recordings, said piece by piece, each piece heard before the next is said.

The audio decides when there is a hearing, and a partial tells that it is over; so nothing waits for a clock.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import Remains, held_bytes, leases, samples
from daemons import AUDIO, Daemon, running
from realtime import ENGLISH, MODEL, SILENCE, Event, RealtimeClient, pcm_at, sentence, session, speech
from scraping import until

LIVE: dict[str, object] = ENGLISH | {"delay": "minimal", "partials": True}
DETECT: dict[str, object] = {"type": "server_vad", "silence_duration_ms": 400}
SECOND = len(SILENCE)
LEAD = SILENCE[: SECOND // 10]
"""A resampler keeps some of the audio to itself until more comes: this makes up for it."""


@pytest.fixture(scope="module")
def live(daemon: Daemon) -> Daemon:
    """With the model loaded, and one media process that stands ready."""
    with session(daemon) as client:
        client.append(SILENCE)
        client.commit()
        client.until("transcription.completed")
    return daemon


def say(client: RealtimeClient, audio: bytes) -> None:
    """Send it, and wait until it has been heard."""
    client.append(audio)
    client.until("transcription.partial")


def say_slowly(client: RealtimeClient, audio: bytes, each: int = SECOND) -> None:
    """In pieces, each of them heard but the last, which is shorter."""
    client.append(LEAD)
    whole = len(audio) // each * each
    for start in range(0, whole, each):
        say(client, audio[start : start + each])
    client.append(audio[whole:])


def deltas(events: list[Event]) -> str:
    return "".join(event["delta"] for event in events if event["type"].endswith("transcription.delta"))


def words(text: str) -> list[str]:
    return "".join(one for one in text.lower() if one.isalnum() or one == " ").split()


def errors(heard: str, reference: str) -> int:
    """How many words of `heard` are too much, too few or others than in `reference`."""
    said = words(heard)
    distances = list(range(len(said) + 1))
    for word in words(reference):
        diagonal, distances[0] = distances[0], distances[0] + 1
        for place, other in enumerate(said, 1):
            changed = diagonal + (word != other)
            diagonal = distances[place]
            distances[place] = min(distances[place] + 1, distances[place - 1] + 1, changed)
    return distances[-1]


def check_turn(events: list[Event]) -> str:
    """The events of one item that was transcribed live. Returns its transcript."""
    types = [event["type"].rpartition(".")[2] for event in events]
    committed = types.index("committed")
    assert types[committed : committed + 3] == ["committed", "added", "done"]
    assert types[-1] == "completed"
    transcript: str = events[-1]["transcript"]
    assert deltas(events) == transcript
    return transcript


# --- what comes -------------------------------------------------------------------------------------------------------


def test_words_come_while_somebody_speaks_and_never_change(live: Daemon) -> None:
    remains = Remains(live)
    with session(live, transcription=LIVE) as client:
        say_slowly(client, speech(), 2 * SECOND)
        client.commit()
        completed = client.until("transcription.completed")
        events = client.of(completed["item_id"])
        transcript = check_turn(events)
        types = [event["type"].rpartition(".")[2] for event in events]
        assert "delta" in types[: types.index("committed")], "words come while somebody speaks"
        partials = [event for event in events if event["type"].endswith("partial")]
        assert len(partials) >= 5, "one for each hearing but the last"
        assert completed["usage"]["seconds"] == 12
    with session(live) as client:
        client.append(speech())
        client.commit()
        assert errors(transcript, client.until("transcription.completed")["transcript"]) == 0
    remains.check()


def test_half_a_minute_without_a_pause_is_heard_in_a_window_that_moves(live: Daemon) -> None:
    said = pcm_at(24_000, AUDIO / "librispeech-6930-75918-0001.wav") + speech() + sentence()
    with session(live, transcription=LIVE) as client:
        say_slowly(client, said, 3 * SECOND)
        until(lambda: held_bytes(live) < 20 * 32_000)  # of 29 s: what is certain is let go
        client.commit()
        transcript = check_turn(client.of(client.until("transcription.completed")["item_id"]))
    with session(live) as client:
        client.append(said)
        client.commit()
        whole = client.until("transcription.completed")["transcript"]
    assert errors(transcript, whole) <= len(words(whole)) * 0.05


def test_turns_that_the_server_finds_are_live_from_where_speech_starts(live: Daemon) -> None:
    with session(live, transcription=LIVE, turn_detection=DETECT) as client:
        client.append(SILENCE)
        client.settle()
        assert not {"delta", "partial"} & set(client.types())
        for _ in range(2):
            say(client, sentence()[: 2 * SECOND])
            say(client, sentence()[2 * SECOND :])
            client.append(SILENCE)
            completed = client.until("transcription.completed")
            events = client.of(completed["item_id"])
            assert events[0]["type"] == "input_audio_buffer.speech_started"
            assert "returned to its place" in check_turn(events)


def test_partials_are_for_whoever_asks(live: Daemon) -> None:
    with session(live, transcription=ENGLISH | {"delay": "minimal"}) as client:
        client.append(sentence())
        client.commit()
        assert "returned to its place" in client.until("transcription.completed")["transcript"]
        assert "partial" not in client.types()
    with session(live) as client:
        client.append(sentence())
        client.settle()
        assert client.types() == ["created", "updated", "cleared"], "nobody has asked for live turns"


def test_a_delay_is_how_much_is_waited_for(live: Daemon) -> None:
    with session(live, transcription=LIVE | {"delay": "medium"}) as client:
        client.append(LEAD + SILENCE * 2)
        say(client, SILENCE)
        client.append(SILENCE * 2)
        client.settle()
        assert client.types().count("partial") == 1


def test_silence_has_an_empty_transcript(live: Daemon) -> None:
    with session(live, transcription=LIVE) as client:
        say_slowly(client, SILENCE)
        client.commit()
        assert client.until("transcription.completed")["transcript"] == ""
        assert {event["text"] for event in client.seen if event["type"].endswith("partial")} == {""}
        assert "delta" not in client.types()


def test_silence_without_an_end_is_let_go(live: Daemon) -> None:
    with session(live, transcription=LIVE | {"delay": "xhigh"}) as client:
        say_slowly(client, SILENCE * 45, SECOND * 5)
        until(lambda: held_bytes(live) <= 28 * 32_000)
        client.commit()
        assert client.until("transcription.completed")["usage"]["seconds"] == 46


def test_the_time_that_words_take_is_shown(live: Daemon) -> None:
    def count(step: str) -> float:
        return samples(live).get(f'audiod_live_seconds_count{{model="{MODEL}",step="{step}"}}', 0.0)

    before = {step: count(step) for step in ("waiting", "engine", "committed")}
    with session(live, transcription=LIVE | {"delay": "low"}) as client:
        say_slowly(client, sentence(), 2 * SECOND)
        client.commit()
        transcript = client.until("transcription.completed")["transcript"]
    assert count("waiting") - before["waiting"] == 2
    assert count("engine") - before["engine"] == 2
    assert count("committed") - before["committed"] == len(words(transcript))


# --- what happens in the middle ---------------------------------------------------------------------------------------


def test_cleared_audio_is_in_no_turn(live: Daemon) -> None:
    remains = Remains(live)
    with session(live, transcription=LIVE) as client:
        say_slowly(client, speech()[: 2 * SECOND], 2 * SECOND)
        first = client.seen[-1]["item_id"]
        client.append(speech()[2 * SECOND : 4 * SECOND])
        client.settle()
        until(lambda: held_bytes(live) == 0)
        client.append(sentence())
        client.commit()
        completed = client.until("transcription.completed")
        assert completed["item_id"] != first
        assert completed["transcript"].startswith("Concord")
        assert client.of(first)[-1]["type"].endswith((".partial", ".delta"))
    remains.check()


def test_a_turn_ends_as_it_began_whatever_the_session_is_set_to(live: Daemon) -> None:
    with session(live, transcription=LIVE, turn_detection=DETECT) as client:
        say(client, sentence()[: 2 * SECOND])
        client.set(transcription=None, turn_detection=None)
        say(client, sentence()[2 * SECOND :])
        client.commit()
        completed = client.until("transcription.completed")
        assert client.of(completed["item_id"])[0]["type"].endswith("speech_started")
        assert "returned to its place" in check_turn(client.of(completed["item_id"]))
        client.append(SILENCE)
        client.commit()
        client.until("conversation.item.done")
        client.settle()
        assert client.types().count("completed") == 1


def test_speech_detection_that_is_switched_on_begins_anew(live: Daemon) -> None:
    with session(live, transcription=LIVE) as client:
        say_slowly(client, SILENCE)
        client.set(turn_detection=DETECT)
        say(client, sentence()[: 2 * SECOND])
        say(client, sentence()[2 * SECOND :])
        client.append(SILENCE)
        completed = client.until("transcription.completed")
        assert client.of(completed["item_id"])[0]["type"].endswith("speech_started")
        assert "returned to its place" in check_turn(client.of(completed["item_id"]))


def test_who_leaves_in_the_middle_leaves_nothing(live: Daemon) -> None:
    remains = Remains(live)
    with session(live, transcription=LIVE) as client:
        say_slowly(client, speech()[: 2 * SECOND], 2 * SECOND)
        client.append(speech())
        until(lambda: leases(live, MODEL) == 1)
        client.socket.socket.close()
    until(lambda: samples(live)['audiod_requests_in_flight{endpoint="/v1/realtime"}'] == 0)
    remains.check()


def test_a_worker_that_dies_is_made_up_for(live: Daemon) -> None:
    """In the middle by the next hearing, at the end by a second try."""
    with session(live, transcription=LIVE) as client:
        say_slowly(client, sentence()[:SECOND])
        for rest in (sentence()[SECOND : 2 * SECOND], sentence()[2 * SECOND : 2 * SECOND + 4800]):
            worker = live.model(MODEL)["worker_pid"]
            os.kill(worker, signal.SIGSTOP)
            client.append(rest)
            if len(rest) < SECOND:
                client.commit()
            until(lambda: leases(live, MODEL) == 1)
            os.kill(worker, signal.SIGKILL)
            if len(rest) == SECOND:
                say(client, SILENCE)
        completed = client.until("transcription.completed")
        assert words(completed["transcript"])[0].startswith("concord")
        assert deltas(client.of(completed["item_id"])) == completed["transcript"]


def test_a_turn_that_cannot_be_heard_to_its_end_has_failed(live: Daemon) -> None:
    with session(live, transcription=LIVE) as client:
        say_slowly(client, sentence()[: 2 * SECOND], 2 * SECOND)
        live.ctl("drain")
        client.append(sentence()[2 * SECOND :])
        client.commit()
        failed = client.until("transcription.failed")
        assert failed["error"]["code"] == "draining"
        live.ctl("undrain")
        client.append(sentence())
        client.commit()
        assert "returned to its place" in client.until("transcription.completed")["transcript"]


# --- other daemons ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """A daemon whose sessions are live."""
    settings = '[realtime]\ndelay = "low"\nlive_interval = "0.5s"\n'
    with running(tmp_path_factory.mktemp("always"), state_dir, settings) as daemon:
        yield daemon


def test_sessions_may_be_live_from_the_start_with_a_model_that_is_not_loaded(always: Daemon) -> None:
    with session(always, transcription={"partials": True, "language": "en"}) as client:
        assert client.seen[0]["session"]["audio"]["input"]["transcription"]["delay"] == "low"
        say(client, sentence())
        client.commit()
        assert "returned to its place" in client.until("transcription.completed")["transcript"]
    until(lambda: held_bytes(always) == 0)


def test_null_makes_turns_whole_again(always: Daemon) -> None:
    with session(always, transcription={"delay": None, "language": "en"}) as client:
        client.append(sentence())
        client.settle()
        assert "delay" not in client.seen[1]["session"]["audio"]["input"]["transcription"]
        assert client.types() == ["created", "updated", "cleared"]


def test_a_session_that_expires_does_not_wait_for_the_end_of_a_turn(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[realtime]\nsession_limit = "1s"\n') as daemon:
        with session(daemon, transcription=LIVE) as client:
            client.append(sentence())
            assert client.until("error")["error"]["code"] == "session_expired"
        until(lambda: samples(daemon)['audiod_requests_in_flight{endpoint="/v1/realtime"}'] == 0)
        assert held_bytes(daemon) == 0
