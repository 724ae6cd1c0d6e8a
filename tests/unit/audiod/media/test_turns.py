"""Turns out of speech probabilities, in any order that these may come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audiod.media.turns import FRAME_SAMPLES, Edge, SpeechStarted, SpeechStopped, TurnDetector, TurnSettings

SPEECH, UNSURE, SILENCE = 0.9, 0.4, 0.05
SETTINGS = TurnSettings(threshold=0.5, prefix_padding_ms=64, silence_duration_ms=96)
"""Two frames of padding, three of silence."""

probabilities = st.lists(st.one_of(st.sampled_from([SPEECH, UNSURE, SILENCE]), st.floats(0, 1)), max_size=300)
settings = st.builds(TurnSettings, st.floats(0.0, 1.0), st.integers(0, 1000), st.integers(0, 1000))


def edges(frames: list[float], detector: TurnDetector) -> list[Edge]:
    return [edge for frame in frames if (edge := detector.hear(frame))]


def test_a_turn_has_padding_before_its_speech_and_the_silence_that_ended_it() -> None:
    frames = [SILENCE] * 10 + [SPEECH] * 5 + [SILENCE] * 10
    begin, end = 8 * FRAME_SAMPLES, 18 * FRAME_SAMPLES
    assert edges(frames, TurnDetector(SETTINGS)) == [SpeechStarted(begin), SpeechStopped(end)]


def test_a_click_is_no_speech() -> None:
    assert edges([SILENCE, SPEECH, SILENCE, SPEECH, UNSURE] * 20, TurnDetector(SETTINGS)) == []


def test_a_pause_shorter_than_the_silence_ends_nothing() -> None:
    frames = [SPEECH] * 3 + [SILENCE] * 2 + [SPEECH] * 3 + [SILENCE] * 2
    assert edges(frames, TurnDetector(SETTINGS)) == [SpeechStarted(0)]


def test_what_is_just_below_the_threshold_does_not_begin_a_silence() -> None:
    frames = [SPEECH] * 3 + [UNSURE] * 20
    assert edges(frames, TurnDetector(SETTINGS)) == [SpeechStarted(0)]


def test_padding_does_not_reach_into_the_turn_before() -> None:
    frames = [SPEECH] * 2 + [SILENCE] * 3 + [SPEECH] * 2
    end = 5 * FRAME_SAMPLES
    found = edges(frames, TurnDetector(SETTINGS))
    assert found == [SpeechStarted(0), SpeechStopped(end), SpeechStarted(end)]


def test_settings_change_at_once() -> None:
    detector = TurnDetector(SETTINGS)
    assert edges([SPEECH] * 4 + [SILENCE] * 2, detector) == [SpeechStarted(0)]
    detector.settings = TurnSettings(silence_duration_ms=64)
    assert edges([SILENCE], detector) == [SpeechStopped(6 * FRAME_SAMPLES)]


@given(settings, probabilities, st.integers(0, 10**6))
def test_edges_alternate_and_turns_are_ordered_and_already_heard(
    chosen: TurnSettings, frames: list[float], origin: int
) -> None:
    detector = TurnDetector(chosen, origin, origin)
    position, last, speaking = origin, origin, False
    for frame in frames:
        horizon = detector.horizon
        edge = detector.hear(frame)
        position += FRAME_SAMPLES
        if edge is None:
            assert detector.horizon >= horizon or speaking
            continue
        assert isinstance(edge, SpeechStopped if speaking else SpeechStarted)
        assert last <= edge.at <= position
        if isinstance(edge, SpeechStarted):
            assert edge.at >= horizon, "what the horizon gave up is not needed again"
        last, speaking = edge.at, not speaking
        assert detector.speaking == speaking


@given(settings, probabilities)
def test_after_a_restart_nothing_of_before_is_in_a_turn(chosen: TurnSettings, frames: list[float]) -> None:
    detector = TurnDetector(chosen)
    edges(frames, detector)
    at = len(frames) * FRAME_SAMPLES
    detector.restart(at)
    found = edges([*frames, 1.0, 1.0], detector)
    assert found
    assert found[0].at >= at
    assert isinstance(found[0], SpeechStarted)
