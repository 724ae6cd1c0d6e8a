"""qwen_asr_package: the package qwen-asr says what transformers says, and is refused, stopped and shared as well."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audioproto.types import PCM_RATE_IN, EngineSpec
from audioproto.worker import Done, Paused, Segment
from daemons import TOP
from zygotes import Samples, Worker, Zygote

TEXT = "hello brave new world"
ENGINES = ("qwen_asr", "qwen_asr_package")


def noise(seconds: float, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * PCM_RATE_IN)).astype(np.float32)


def text_of(segments: list[Any]) -> str:
    return "".join(segment.text for segment in segments if isinstance(segment, Segment))


def run(python: Path, script: str, *arguments: str) -> Any:
    ran = subprocess.run(
        [str(python), str(TOP / "tests/engines" / script), *arguments],
        env={"PYTHONPATH": str(TOP / "daemon"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


# --- both libraries on the same checkpoints ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tiny_qwen: Path, runtime_python: Callable[[str], Path]) -> dict[str, Any]:
    """What qwen_variants.py finds, for each of ENGINES."""
    return {engine: run(runtime_python(engine), "qwen_variants.py", engine, str(tiny_qwen)) for engine in ENGINES}


def test_both_engines_say_the_same_of_the_same_audio(both: dict[str, Any]) -> None:
    """Language, text, times of segments and words: with a language and without, short, long, silent, and Chinese."""
    native, package = (both[engine]["heard"] for engine in ENGINES)
    assert package == native
    said = [(language, "".join(segment["text"] for segment in segments)) for language, segments in package]
    assert said == [
        *[("en", TEXT)] * 5,
        ("en", " ".join([TEXT] * 3)),
        *[("", "")] * 3,
        ("zh", "你好世界。" * 2),
        ("yue", "你好世界。" * 2),
    ]


def test_both_libraries_write_the_same_tokens_within_a_window_of_the_encoder(both: dict[str, Any]) -> None:
    """On random weights, where anything that differs shows: features, tower, prompt, positions, decoder."""
    native, package = (both[engine] for engine in ENGINES)
    assert package["tokens"] == native["tokens"]
    for one, other in zip(package["letters"], native["letters"], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)
    assert len({tuple(letters) for letters in native["letters"]}) == len(native["letters"])


def test_beyond_a_window_only_transformers_keeps_to_it(both: dict[str, Any]) -> None:
    """Why qwen_asr is the default. Where this fails the package has learned it, and the parity should go further."""
    assert both["qwen_asr"]["changed"] < 1e-3
    assert both["qwen_asr_package"]["changed"] > 1e-2


# --- in a worker ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zygote(
    tiny_qwen: Path, runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Zygote]:
    """Of a checkpoint that never comes to the end of its text."""
    spec = EngineSpec(
        "qwen_asr_package",
        "tiny-noise",
        str(tiny_qwen / "noise"),
        threads=2,
        concurrency=4,
        options={"chunk_s": 5, "vad": False},
    )
    started = Zygote(runtime_python("qwen_asr_package"), spec, tmp_path_factory.mktemp("package"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def worker(zygote: Zygote) -> Iterator[Worker]:
    forked = zygote.fork()
    yield forked
    forked.close()


def test_a_prepared_zygote_has_one_thread_and_workers_of_it_work(zygote: Zygote) -> None:
    assert zygote.hold == "weights"
    assert len(list(Path(f"/proc/{zygote.process.pid}/task").iterdir())) == 1
    for _ in range(2):
        worker = zygote.fork()
        assert worker.warm()
        assert zygote.end(worker) == 0


def test_jobs_at_once_give_what_each_gives_alone(worker: Worker) -> None:
    """The package itself mixes up what two threads ask it."""
    wanted = [noise(length, seed) for seed, length in enumerate((0.3, 0.6, 0.9))]
    alone = [text_of(worker.transcribe(samples)[0]) for samples in wanted]
    jobs = [worker.begin(samples) for samples in wanted]
    assert [text_of(worker.finish(job)[0]) for job in jobs] == alone
    assert len(set(alone)) > 1


def test_temperature_gives_other_text_than_greedy_and_only_to_whom_asked(worker: Worker) -> None:
    greedy = text_of(worker.transcribe(noise(0.3))[0])
    assert text_of(worker.transcribe(noise(0.3), temperature=1.0)[0]) != greedy
    assert text_of(worker.transcribe(noise(0.3))[0]) == greedy


def test_text_without_end_is_heard_again_in_halves_and_a_pause_between_them_changes_nothing(worker: Worker) -> None:
    audio = noise(4.1)
    alone, _ = worker.transcribe(audio)
    assert len(alone) == 2
    assert alone[0].end <= alone[1].start
    job = worker.begin(audio)
    before = [worker.next(job)]
    worker.pause(job)
    while not isinstance(message := worker.next(job), Paused):
        before.append(message)
    assert text_of(worker.transcribe(noise(0.3))[0])
    assert worker.brought(job) == []
    worker.resume(job)
    after, _ = worker.finish(job)
    assert text_of([*before, *after]) == text_of(list(alone))


def test_a_job_that_is_given_up_ends_within_its_chunk(worker: Worker) -> None:
    """Five minutes of it would take a minute."""
    job = worker.begin(noise(300))
    assert isinstance(worker.next(job), Segment)
    worker.abort(job)
    messages, end = worker.finish(job)
    assert isinstance(end, Done)
    assert end.aborted
    assert len(messages) <= 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"language": "tlh"}, "language"),
        ({"languages": ["en", "tlh"]}, "languages[]"),
        ({"languages": ["en", "fr"]}, "languages[]"),
        ({"translate_to": "en"}, "translate_to"),
    ],
)
def test_what_it_cannot_do_is_refused_by_the_field(worker: Worker, fields: dict[str, Any], param: str) -> None:
    refusal = worker.refusal(noise(1), **fields)
    assert (refusal.error.code, refusal.error.param) == ("invalid_request", param)


# --- checkpoints that are none ----------------------------------------------------------------------------------------


def test_wrong_and_broken_checkpoints_are_refused_with_what_to_type_next(
    tiny_qwen: Path, tmp_path: Path, runtime_python: Callable[[str], Path]
) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(tiny_qwen / "asr", tmp_path / name))

    weights = broken("half") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000_000])
    (broken("wordless") / "vocab.json").unlink()
    # More layers than there are weights, and wider ones: the package itself would make them up.
    for name, had, wants in (
        ("layered", '"num_hidden_layers": 1', '"num_hidden_layers": 2'),
        ("wide", '"d_model": 16', '"d_model": 32'),
    ):
        config = broken(name) / "config.json"
        assert had in config.read_text()
        config.write_text(config.read_text().replace(had, wants))

    pull = "audioctl models pull tiny"
    expected: list[tuple[str, dict[str, Any], str, str, str]] = [
        ("nowhere", {}, "model_not_installed", "no config.json", pull),
        ("half", {}, "model_not_installed", "missing or cut off", pull),
        ("wordless", {}, "model_not_installed", "tokenizer", pull),
        ("layered", {}, "config_invalid", "missing keys", pull),
        ("wide", {}, "config_invalid", "not those of its config.json", pull),
        (str(tiny_qwen / "aligner"), {}, "config_invalid", "forced aligner, not a recogniser", "audioctl"),
        (str(tiny_qwen / "asr-hf"), {}, "config_invalid", "-hf layout", 'engine = "qwen_asr"'),
        (str(tiny_qwen / "asr"), {"attention": "flash_attention_2"}, "config_invalid", "attention", "sdpa"),
        (str(tiny_qwen / "asr"), {"chunk_s": 4}, "invalid_request", "chunk_s must be", ""),
        (str(tiny_qwen / "asr"), {"vad": 1}, "invalid_request", "vad must be", ""),
    ]
    tried = [("qwen_asr_package", str(tmp_path / directory), options) for directory, options, *_ in expected]
    errors = run(runtime_python("qwen_asr_package"), "qwen_layouts.py", "refuse", json.dumps(tried))
    for (directory, _, code, message, hint), error in zip(expected, errors, strict=True):
        assert error is not None, directory
        assert error["code"] == code, error
        assert message in error["message"], error
        assert hint in error.get("hint", ""), error
