"""indextts25 on tiny checkpoints, in real zygotes and forked workers; and next to the library's own program.

What is no different from indextts2, test_indextts2.py shows: both engines are one class but for what is tested here.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioproto.types import EngineSpec
from audioproto.worker import AudioChunk, Done, Emotion, Failed, Message, Phase, Recording, Reference
from daemons import TOP
from speakers import Spoilt, Start, check_refused, phases, put, seeded, spoken, zygotes
from zygotes import Worker, heard, recording

RATE_HZ = 22_050
PART = 11_264
"""Samples of a part of the tiny checkpoint: 13 codes, 44 frames of 256."""


@pytest.fixture(scope="module")
def zygote_with(
    tiny_indextts25: Path, runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    with zygotes("indextts25", runtime_python("indextts25"), tiny_indextts25, tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def worker(zygote_with: Start) -> Iterator[Worker]:
    worker = zygote_with().fork()
    yield worker
    worker.close()


def in_runtime(python: Path, home: Path, *arguments: str) -> str:
    """What a program writes that runs with our code."""
    environment = {"PYTHONPATH": str(TOP / "daemon"), "HF_HUB_OFFLINE": "1", "HOME": str(home)}
    ran = subprocess.run([str(python), *arguments], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_prepared_zygote_has_one_thread_and_has_written_nothing(zygote_with: Start) -> None:
    zygote = zygote_with()
    assert zygote.hold == "weights"
    assert len(list(Path(f"/proc/{zygote.process.pid}/task").iterdir())) == 1
    assert [file for file in zygote.log.with_suffix("").rglob("*") if not file.is_dir()] == []


def test_it_computes_what_the_library_does_bit_for_bit(
    tiny_indextts25: Path, runtime_python: Callable[[str], Path], tmp_path: Path
) -> None:
    """Text in three languages, every emotion that it takes, and speed; with the beams and steps of the library."""
    chinese, vector = {"lang": "zh"}, [0, 0.8, 0, 0, 0, 0, 0, 0]
    calls: list[dict[str, Any]] = [
        {"text": "你好世界，今天是2026年。", "seed": 1, "library": chinese},
        {"text": "Hello world, it is three.", "seed": 2, "library": {"lang": "en"}},
        {"text": "¿Qué tal?", "seed": 3, "library": {"lang": "es"}},
        {
            "text": "<行|XING2>。",
            "seed": 4,
            "emotion": {"recording": True, "alpha": 0.5},
            "library": chinese | {"emo_audio_prompt": "emotion", "emo_alpha": 0.5},
        },
        {
            "text": "你好。",
            "seed": 5,
            "emotion": {"vector": vector},
            # As the page of IndexTTS2 makes it of that: 0.875 times as much anger.
            "library": chinese | {"emo_vector": [0, 0.7, 0, 0, 0, 0, 0, 0]},
        },
        {"text": "你好。", "seed": 6, "speed": 1.25, "library": chinese | {"duration_factor": 0.8}},
    ]
    np.save(tmp_path / "reference.npy", np.repeat(recording("jfk")[:32_000], 2))
    in_runtime(
        runtime_python("indextts25"),
        tmp_path,
        str(TOP / "tests/engines/indextts25_library.py"),
        str(tiny_indextts25 / "tiny"),
        str(tmp_path / "reference.npy"),
        str(tmp_path),
        json.dumps(calls),
    )
    for number in range(len(calls)):
        theirs, ours = (np.load(tmp_path / f"{number}.{whose}.npy") for whose in ("library", "ours"))
        assert np.array_equal(theirs, ours)
        assert theirs.std() > 0.05 * 32_767


# --- voices, emotions, speed ------------------------------------------------------------------------------------------


def test_a_stored_voice_is_encoded_once_and_staging_changes_nothing(zygote_with: Start, worker: Worker) -> None:
    zygote = zygote_with(memory_bytes=1)
    said, ran = [], []
    for _ in range(2):
        staged = zygote.fork()
        messages = spoken(staged, "你好。", voice="voice_a", **seeded())
        said.append(heard(messages))
        ran.append([name for name in phases(messages) if name != "transfer"])
        assert "transfer" in phases(messages)
        zygote.end(staged)
    speaking = ["autoregression", "s2mel", "vocoder"]
    assert ran == [["reference", *speaking], speaking]
    assert said[0].size == PART
    unstaged = spoken(worker, "你好。", **seeded())
    assert "transfer" not in phases(unstaged)
    assert np.array_equal(said[0], said[1])
    assert np.array_equal(said[0], heard(unstaged))


def test_voices_differ(worker: Worker) -> None:
    woman = recording("librispeech-6930-75918-0001")[:48_000]
    plain, other = (heard(spoken(worker, "你好。", samples=samples, **seeded())) for samples in (None, woman))
    assert plain.size == other.size
    assert not np.array_equal(plain, other)


def test_an_emotion_by_vector_is_heard_and_one_in_words_is_refused(worker: Worker) -> None:
    """What the tiny one writes changes little with an emotion, and not with every seed."""
    differ = []
    for seed in range(1, 9):
        plain = heard(spoken(worker, "今天我们来说一说。", **seeded(seed)))
        emotion = Emotion(vector=[0, 0.9, 0, 0, 0, 0, 0, 0])
        angry = heard(spoken(worker, "今天我们来说一说。", emotion=emotion, **seeded(seed)))
        differ.append(not np.array_equal(plain, angry))
    assert any(differ)
    for emotion in (Emotion(text="生气"), Emotion()):
        refused = spoken(worker, "你好。", emotion=emotion)[-1]
        assert isinstance(refused, Failed)
        assert (refused.error.code, refused.error.param) == ("invalid_request", "emotion")
        assert "vector" in refused.error.message
        assert "indextts-2" in refused.error.message


def test_speed_is_the_model_s_own(worker: Worker) -> None:
    lengths = {speed: heard(spoken(worker, "你好。", speed=speed, **seeded())).size for speed in (0.5, 1.0, 1.25)}
    assert lengths[0.5] == pytest.approx(PART * 2, abs=256)
    assert lengths[1.25] == pytest.approx(PART / 1.25, abs=256)


# --- long texts -------------------------------------------------------------------------------------------------------


def test_the_first_part_is_heard_before_the_second_is_computed_and_no_more_when_nobody_listens(worker: Worker) -> None:
    samples = recording("jfk")[:32_000]
    reference = Reference(Recording(samples.size, 16_000))
    job = worker.begin_speaking("今天我们来说一说这个地方的人。" * 300, samples, reference=reference)
    seen: list[Message] = []
    while not isinstance(message := worker.next(job), AudioChunk):
        seen.append(message)
    parts = [message for message in seen if isinstance(message, Phase) and message.part]
    assert {message.part for message in parts} == {1}
    assert parts[0].parts > 20
    worker.abort(job)
    _, end = worker.finish(job)
    assert isinstance(end, Done)
    assert end.aborted


# --- languages --------------------------------------------------------------------------------------------------------

SHOW = """
import json, sys
from audioproto.types import EngineSpec
from audioworker import engine
made = engine.find("indextts25")(EngineSpec("indextts25", "tiny", sys.argv[1]))
made.prepare()
front = made._made.front
def shown(asked, written):
    language = front.language(asked, written)
    return [front._tokenizer.decode(part) for part, _ in front.parts(written, language, 120)]
print(json.dumps([shown(*text) for text in json.loads(sys.argv[2])]))
"""

PARTS: list[tuple[str, str, list[str]]] = [
    ("", "你好，今天是2026年。再见。我在。", ["<|zh|> 你好,今天是二零二六年.", "<|zh|> 再见.我在."]),
    ("", "It is 3.5% now. Good!", ["<|en|> it is three point five percent now.", "<|en|> good!"]),
    ("", "Son las 14:30, ¿no?", ["<|es|> SON LAS CATORCE TREINTA, ¿NO?"]),
    ("es", "1.200 gatos", ["<|es|> MIL DOSCIENTOS GATOS."]),
    ("es", "el 3,5 %", ["<|es|> EL TRES COMA CINCO POR CIENTO"]),
    ("es", "0,05 y 21kg", ["<|es|> CERO COMA CERO CINCO Y VEINTIUNO KG."]),
    ("", "مرحبا 12", ["<|ar|> مرحبا 12."]),
    ("", "<|en|>他<行|XING2>。", ["<|zh|> 他<|SPECIAL_TOKEN_2|>XING2<|SPECIAL_TOKEN_2|>."]),
    ("", "I am <going|G OW1 . IH0 NG> home.", [
        "<|en|> i am <|SPECIAL_TOKEN_1|>G OW1 . IH0 NG<|SPECIAL_TOKEN_1|> home."
    ]),
    ("en", "Hello. ไม่มี", ["<|en|> hello."]),
    ("", "ไม่มี", []),
]  # fmt: skip


def test_a_text_is_read_in_its_language(
    tiny_indextts25: Path, runtime_python: Callable[[str], Path], tmp_path: Path
) -> None:
    texts = json.dumps([(asked, written) for asked, written, _ in PARTS])
    shown = in_runtime(runtime_python("indextts25"), tmp_path, "-c", SHOW, str(tiny_indextts25 / "tiny"), texts)
    for (_, written, expected), parts in zip(PARTS, json.loads(shown), strict=True):
        assert parts == expected, written


@pytest.mark.parametrize(
    ("text", "fields", "code", "param"),
    [
        ("ไม่มี", {}, "unspeakable_text", "input"),
        ("こんにちは。", {}, "unspeakable_text", "input"),
        ("Bonjour.", {"language": "fr"}, "invalid_request", "language"),
        ("你好。", {"samples": recording("jfk")[:1000]}, "invalid_audio", "voice"),
    ],
)
def test_bad_input_is_refused_by_the_field(
    worker: Worker, text: str, fields: dict[str, Any], code: str, param: str
) -> None:
    end = spoken(worker, text, **fields)[-1]
    assert isinstance(end, Failed)
    assert (end.error.code, end.error.param) == (code, param)


# --- checkpoints ------------------------------------------------------------------------------------------------------


VOCABULARY = "multilingual_zh_ja_yue_char_del.tiktoken"
ANOTHER = "".join(f"{base64.b64encode(number.to_bytes(2)).decode()} {number}\n" for number in range(600)).encode()

SPOILT: Spoilt = {
    "no codec": (lambda where: (where / "codec.pth").unlink(), "model_not_installed", "codec.pth"),
    "no vocabulary": (lambda where: (where / VOCABULARY).unlink(), "model_not_installed", VOCABULARY),
    "half a codec": (
        lambda where: put(where / "codec.pth", (where / "codec.pth").read_bytes()[:10_000]), "model_not_installed",
        "codec.pth",
    ),
    "another codec": (
        lambda where: put(where / "codec.pth", (where / "s2mel.pth").read_bytes()), "config_invalid", "codec.pth",
    ),
    "another vocabulary": (lambda where: put(where / VOCABULARY, ANOTHER), "config_invalid", VOCABULARY),
    "another language model": (
        lambda where: put(where / "gpt.pth", (where / "s2mel.pth").read_bytes()), "config_invalid", "gpt.pth",
    ),
}  # fmt: skip


def test_a_checkpoint_that_is_not_whole_is_refused_by_the_part(
    tiny_indextts25: Path, runtime_python: Callable[[str], Path], tmp_path: Path
) -> None:
    check_refused("indextts25", runtime_python("indextts25"), tiny_indextts25 / "tiny", SPOILT, tmp_path)


def test_it_does_not_compute_in_sixteen_bits_on_a_cpu() -> None:
    from audioproto.errors import BadRequest
    from audioworker import engine

    with pytest.raises(BadRequest, match="bfloat16 needs a GPU"):
        engine.find("indextts25")(EngineSpec("indextts25", "tiny", "", options={"dtype": "bfloat16"}))
    with pytest.raises(BadRequest, match="auto, bfloat16, float32"):
        engine.find("indextts25")(EngineSpec("indextts25", "tiny", "", options={"dtype": "float16"}))
