"""indextts2 on tiny checkpoints, in real zygotes and forked workers; and next to the library's own program."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioproto.worker import (
    AudioChunk,
    AudioStart,
    Done,
    Emotion,
    Failed,
    Message,
    Phase,
    Recording,
    Reference,
    Sampling,
)
from daemons import TOP
from speakers import Spoilt, Start, check_refused, cut, phases, put, seeded, spoken, zygotes
from zygotes import Worker, Zygote, heard, recording

RATE_HZ = 22_050
PART = 11_008
"""Samples of a part of the tiny checkpoint: 25 codes, 43 frames of 256."""

PAUSE = round(0.2 * RATE_HZ)


@pytest.fixture(scope="module")
def zygote_with(
    tiny_indextts: Path, runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    with zygotes("indextts2", runtime_python("indextts2"), tiny_indextts, tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def worker(zygote_with: Start) -> Iterator[Worker]:
    worker = zygote_with().fork()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def endless(zygote_with: Start, tmp_path_factory: pytest.TempPathFactory) -> Zygote:
    """Of a model that never ends by itself. It can keep no voices: where they should be is a file."""
    blocked = tmp_path_factory.mktemp("blocked") / "made"
    blocked.write_bytes(b"")
    return zygote_with("endless", voices_dir=blocked, part_tokens=300)


# --- zygotes ----------------------------------------------------------------------------------------------------------


def test_a_prepared_zygote_has_one_thread_and_has_written_nothing(zygote_with: Start) -> None:
    zygote = zygote_with()
    assert zygote.hold == "weights"
    assert len(list(Path(f"/proc/{zygote.process.pid}/task").iterdir())) == 1
    assert [file for file in zygote.log.with_suffix("").rglob("*") if not file.is_dir()] == []


def test_workers_forked_one_after_another_all_work(zygote_with: Start) -> None:
    zygote = zygote_with()
    said = []
    for _ in range(2):
        worker = zygote.fork()
        worker.warm()
        said.append(heard(spoken(worker, "你好。", **seeded())))
        assert zygote.end(worker) == 0
    assert np.array_equal(said[0], said[1])
    assert said[0].size == PART


# --- the library ------------------------------------------------------------------------------------------------------


def test_it_computes_what_the_library_does_bit_for_bit(
    tiny_indextts: Path, runtime_python: Callable[[str], Path], tmp_path: Path
) -> None:
    """Text in both languages, and every way to tell an emotion; with the beams and steps of the library."""
    calls: list[dict[str, Any]] = [
        {"text": "你好世界，今天是2026年。", "seed": 1},
        {"text": "Hello world, it is three.", "seed": 2},
        {
            "text": "你好。",
            "seed": 3,
            "emotion": {"text": "我很高兴"},
            "library": {"use_emo_text": True, "emo_text": "我很高兴"},
        },
        {
            "text": "你好。",
            "seed": 4,
            "emotion": {"recording": True, "alpha": 0.5},
            "library": {"emo_audio_prompt": "emotion", "emo_alpha": 0.5},
        },
        {
            "text": "你好。",
            "seed": 5,
            "emotion": {"vector": [0, 0.8, 0, 0, 0, 0, 0, 0]},
            # As its page makes it of that: 0.875 times as much anger.
            "library": {"emo_vector": [0, 0.7, 0, 0, 0, 0, 0, 0]},
        },
    ]
    np.save(tmp_path / "reference.npy", np.repeat(recording("jfk")[:32_000], 2))
    command = [
        str(runtime_python("indextts2")),
        str(TOP / "tests/engines/indextts_library.py"),
        str(tiny_indextts / "tiny"),
        str(tmp_path / "reference.npy"),
        str(tmp_path),
        json.dumps(calls),
    ]
    environment = {"PYTHONPATH": str(TOP / "daemon"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for number in range(len(calls)):
        theirs, ours = (np.load(tmp_path / f"{number}.{whose}.npy") for whose in ("library", "ours"))
        assert np.array_equal(theirs, ours)
        assert theirs.std() > 0.05


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0),
        Sampling(temperature=2.0, top_p=1.0, top_k=0, repetition_penalty=1.0),
        Sampling(top_k=1, repetition_penalty=0.5, seed=2**53),
        Sampling(top_p=1e-6, seed=0),
    ],
)
def test_every_sampling_that_may_be_asked_for_speaks(worker: Worker, sampling: Sampling) -> None:
    assert heard(spoken(worker, "你好。", sampling=sampling)).size == PART


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0, top_p=1.0, top_k=0, repetition_penalty=0.5, seed=1),
        Sampling(repetition_penalty=1e-40, seed=1),
        Sampling(temperature=1e-38, seed=1),
    ],
    ids=["hot", "rewarded for repeating", "cold"],
)
def test_what_is_drawn_is_always_a_sound(endless: Zygote, sampling: Sampling) -> None:
    """Of a model whose weights forbid no code: that of the beginning, say, which no sound has."""
    worker = endless.fork()
    assert heard(spoken(worker, "你好。", sampling=sampling)).size
    worker.close()


def test_seeds_that_are_far_apart_differ(worker: Worker) -> None:
    """torch's generator on the CPU takes 32 bits."""
    said = [heard(spoken(worker, "你好。", **seeded(seed))) for seed in (1, 1 + 2**12, 1 + 2**32, 2**53)]
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(said, 2))


def test_two_at_once_say_what_each_says_alone(worker: Worker) -> None:
    texts, samples = ("今天我们来说一说。" * 3, "你好世界。" * 3), recording("jfk")[:48_000]
    alone = [heard(spoken(worker, text, **seeded())) for text in texts]
    fields = {"reference": Reference(Recording(samples.size, 16_000)), **seeded()}
    jobs = [worker.begin_speaking(text, samples, **fields) for text in texts]
    assert all(np.array_equal(heard(worker.finish(job)[0]), said) for job, said in zip(jobs, alone, strict=True))


# --- voices -----------------------------------------------------------------------------------------------------------


def test_a_stored_voice_is_encoded_once_and_for_all_workers(zygote_with: Start) -> None:
    """The encoders are not even needed by a worker that comes later."""
    zygote = zygote_with(memory_bytes=1)
    said, ran = [], []
    for _ in range(2):
        worker = zygote.fork()
        messages = spoken(worker, "你好。", voice="voice_a", **seeded())
        said.append(heard(messages))
        ran.append(phases(messages))
        zygote.end(worker)
    speaking = ["autoregression", "s2mel", "vocoder"]
    assert [name for name in ran[0] if name != "transfer"] == ["reference", *speaking]
    assert [name for name in ran[1] if name != "transfer"] == speaking
    assert np.array_equal(said[0], said[1])


def test_a_recording_that_came_with_the_request_leaves_nothing_behind(zygote_with: Start, worker: Worker) -> None:
    directory = Path(zygote_with().spec.voices_dir)
    before = sorted(directory.glob("*"))
    assert "reference" in phases(spoken(worker, "你好。", samples=recording("jfk")[16_000:48_000]))
    assert "reference" not in phases(spoken(worker, "你好。", samples=recording("jfk")[16_000:48_000]))
    assert sorted(directory.glob("*")) == before


def test_what_is_kept_of_another_recording_or_cut_off_is_made_anew(zygote_with: Start) -> None:
    zygote = zygote_with(memory_bytes=1)
    kept = Path(zygote.spec.voices_dir, "voice_b.safetensors")
    other = recording("jfk")[48_000:96_000]
    for spoil in (lambda: None, lambda: kept.write_bytes(kept.read_bytes()[:1000])):
        spoil()
        worker = zygote.fork()
        assert "reference" in phases(spoken(worker, "你好。", voice="voice_b"))
        zygote.end(worker)
    worker = zygote.fork()
    assert "reference" in phases(spoken(worker, "你好。", voice="voice_b", samples=other))
    zygote.end(worker)
    worker = zygote.fork()
    assert "reference" not in phases(spoken(worker, "你好。", voice="voice_b", samples=other))
    zygote.end(worker)
    assert [file.name for file in kept.parent.iterdir() if file.name.startswith(".")] == []


def test_a_disk_that_takes_nothing_costs_time_and_no_speech(endless: Zygote) -> None:
    worker = endless.fork()
    assert heard(spoken(worker, "你好。", voice="voice_c")).size
    endless.end(worker)
    assert "voice_c is not kept on disk" in endless.log.read_text()


def test_voices_differ_and_rates_do_not_matter(worker: Worker) -> None:
    kennedy, woman = recording("jfk")[:48_000], recording("librispeech-6930-75918-0001")[:48_000]
    one = heard(spoken(worker, "你好。", samples=kennedy, **seeded()))
    other = heard(spoken(worker, "你好。", samples=woman, **seeded()))
    finer = np.interp(np.arange(144_000) / 3, np.arange(48_000), kennedy).astype(np.float32)
    again = heard(spoken(worker, "你好。", samples=finer, rate_hz=48_000, **seeded()))
    assert np.abs(one - other).mean() > 2 * np.abs(one - again).mean()


def test_only_the_first_fifteen_seconds_of_a_recording_are_heard(worker: Worker) -> None:
    long = np.tile(recording("jfk"), 30)  # five and a half minutes
    one = heard(spoken(worker, "你好。", samples=long, **seeded()))
    assert np.array_equal(one, heard(spoken(worker, "你好。", samples=long[: 15 * 16_000], **seeded())))


@pytest.mark.parametrize(
    ("text", "fields", "code", "param"),
    [
        ("ไม่มี", {}, "unspeakable_text", "input"),
        ("你好。", {"samples": recording("jfk")[:1000]}, "invalid_audio", "voice"),
        ("你好。", {"samples": np.pad(recording("jfk"), (16 * 16_000, 0))}, "invalid_audio", "voice"),
        ("你好。", {"emotion": Emotion(vector=[1.0])}, "invalid_request", "emotion"),
    ],
)
def test_bad_input_is_refused_by_the_field(
    worker: Worker, text: str, fields: dict[str, Any], code: str, param: str
) -> None:
    end = spoken(worker, text, **fields)[-1]
    assert isinstance(end, Failed)
    assert (end.error.code, end.error.param) == (code, param)


def test_without_a_recording_it_has_no_voice(worker: Worker) -> None:
    refusal = worker.refusal(text="你好。")
    assert (refusal.error.code, refusal.error.param) == ("voice_not_found", "voice")
    assert "audioctl voices add" in refusal.error.hint


# --- emotions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emotion", [Emotion(vector=[0.9, 0, 0, 0, 0, 0, 0, 0]), Emotion(text="生气"), Emotion()])
def test_an_emotion_is_heard_and_leaves_the_voice_alone(worker: Worker, emotion: Emotion) -> None:
    plain = heard(spoken(worker, "你好。", **seeded()))
    moved = spoken(worker, "你好。", emotion=emotion, **seeded())
    assert not np.array_equal(heard(moved), plain)
    assert ("emotion" in phases(moved)) == (not emotion.vector)
    assert np.array_equal(heard(spoken(worker, "你好。", **seeded())), plain)


def test_an_emotion_of_which_nothing_is_wanted_is_none(worker: Worker) -> None:
    plain = heard(spoken(worker, "你好。", **seeded()))
    none = Emotion(vector=[0.9, 0, 0, 0, 0, 0, 0, 0], alpha=0.0)
    assert np.array_equal(heard(spoken(worker, "你好。", emotion=none, **seeded())), plain)


# --- long texts -------------------------------------------------------------------------------------------------------


def test_the_first_part_is_heard_before_the_second_is_computed(worker: Worker) -> None:
    text = "今天我们来说一说这个地方的人。" * 300
    samples = recording("jfk")[:32_000]
    job = worker.begin_speaking(text, samples, reference=Reference(Recording(samples.size, 16_000)))
    seen: list[Message] = []
    while not isinstance(message := worker.next(job), AudioChunk):
        seen.append(message)
    parts = [message for message in seen if isinstance(message, Phase) and message.part]
    assert {message.part for message in parts} == {1}
    assert parts[0].parts > 20
    assert any(isinstance(message, AudioStart) for message in seen)
    worker.abort(job)
    _, end = worker.finish(job)
    assert isinstance(end, Done)
    assert end.aborted


def test_the_first_part_is_short_even_if_the_first_sentence_is_not(worker: Worker) -> None:
    """A sentence of 60 tokens; a part may have 120, and the first one 40."""
    sentence = "今天我们来说一说这个地方的人，你们也来说一说那里的事，我们在这里说，你们在那里说一说。"
    messages = spoken(worker, sentence, **seeded())
    assert [message.part for message in messages if isinstance(message, Phase) and message.name == "vocoder"] == [1, 2]


def test_parts_are_equally_loud_and_apart_by_the_pause_that_was_asked_for(worker: Worker) -> None:
    text = "今天是二零二六年。" + "我们在这里说你好世界。" * 12
    for pause_s, pause in ((None, PAUSE), (0.5, RATE_HZ // 2), (0.0, 0)):
        messages = spoken(worker, text, pause_s=pause_s, **seeded())
        counts = [message.parts for message in messages if isinstance(message, Phase) and message.parts]
        audio, parts = heard(messages), counts[-1]
        assert parts > 2
        assert abs(counts[0] - parts) <= 1, "how many there will be is known well before"
        assert audio.size == parts * PART + (parts - 1) * pause
        levels = [audio[at : at + PART].std() for at in range(0, audio.size, PART + pause)]
        assert max(levels) / min(levels) < 1.12  # 1 dB


def test_a_model_that_runs_away_is_stopped_by_the_length_of_the_text(endless: Zygote) -> None:
    worker = endless.fork()
    messages = spoken(worker, "你好。", **seeded())
    assert phases(messages).count("autoregression") == 2, "it is given a second chance"
    assert 3.0 < heard(messages).size / RATE_HZ < 6.0
    assert "no end" in endless.log.read_text()
    worker.close()


def test_a_long_part_that_runs_away_is_stopped_too_and_is_written_once_where_nothing_is_drawn(endless: Zygote) -> None:
    """The model has places for 36 s of speech, which is less than the bound for a long part."""
    worker = endless.fork()
    messages = spoken(worker, "今天我们来说一说这个地方的人" * 5, sampling=Sampling(temperature=0.0))
    first = [message.name for message in messages if isinstance(message, Phase) and message.part == 1]
    assert first.count("autoregression") == 1
    assert "codes and no end, in try 1" in endless.log.read_text()
    worker.close()


def test_it_ends_at_the_next_token_when_nobody_wants_it_any_more(endless: Zygote) -> None:
    worker = endless.fork()
    samples = recording("jfk")[:32_000]
    text = "今天我们来说一说这个地方的人" * 10
    job = worker.begin_speaking(text, samples, reference=Reference(Recording(samples.size, 16_000)))
    while not isinstance(worker.next(job), Phase):
        pass
    worker.abort(job)
    messages, end = worker.finish(job)
    assert isinstance(end, Done)
    assert end.aborted
    assert "autoregression" not in phases(messages)
    worker.close()


def test_silence_and_markup_are_not_spoken(worker: Worker) -> None:
    assert heard(spoken(worker, "……")).max() == 0
    assert heard(spoken(worker, "# 你好\n\n🎉", **seeded())).size == PART


# --- staging ----------------------------------------------------------------------------------------------------------


def test_staging_changes_where_weights_are_and_nothing_else(zygote_with: Start, worker: Worker) -> None:
    staged = zygote_with(memory_bytes=1).fork()
    text = "今天我们来说一说。" * 4
    fields = {"emotion": Emotion(text="生气"), **seeded()}
    plain, moved = spoken(worker, text, **fields), spoken(staged, text, **fields)
    assert np.array_equal(heard(plain), heard(moved))
    assert "transfer" not in phases(plain)
    assert phases(moved)[:2] == ["transfer", "reference"]
    staged.close()


# --- checkpoints ------------------------------------------------------------------------------------------------------


SPOILT: Spoilt = {
    "no diffusion": (lambda where: (where / "s2mel.pth").unlink(), "model_not_installed", "s2mel.pth"),
    "no vocoder": (lambda where: (where / "hf_cache/bigvgan/config.json").unlink(), "model_not_installed", "bigvgan"),
    "half a language model": (lambda where: cut(where / "gpt.pth"), "model_not_installed", "gpt.pth"),
    "half a w2v-bert": (
        lambda where: cut(where / "hf_cache/w2v-bert-2.0/model.safetensors"), "model_not_installed", "w2v-bert-2.0",
    ),
    "half a codec": (
        lambda where: cut(where / "hf_cache/semantic_codec_model.safetensors"), "model_not_installed", "semantic_codec",
    ),
    "another configuration": (lambda where: put(where / "config.yaml", b"version: 2"), "config_invalid", "config.yaml"),
    "no emotions": (
        lambda where: put(where / "feat2.pt", (where / "feat1.pt").read_bytes()), "config_invalid", "feat2.pt",
    ),
    "another language model": (
        lambda where: put(where / "gpt.pth", (where / "feat1.pt").read_bytes()), "config_invalid", "gpt.pth",
    ),
    "code in place of weights": (
        lambda where: put(where / "feat1.pt", pickle.dumps(print)), "config_invalid", "feat1.pt",
    ),
}  # fmt: skip


def test_a_checkpoint_that_is_not_whole_is_refused_by_the_part(
    tiny_indextts: Path, runtime_python: Callable[[str], Path], tmp_path: Path
) -> None:
    check_refused("indextts2", runtime_python("indextts2"), tiny_indextts / "tiny", SPOILT, tmp_path)
