"""The embedded engines in their own runtimes, each in a real zygote and its forked workers."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from audiod.models import catalogue
from audiod.models.catalogue import ModelEntry
from audioproto.types import PCM_RATE_IN, EngineSpec, Task
from audioproto.worker import AudioChunk, AudioStart, Done, Failed, Message, Paused, Segment
from daemons import TOP
from zygotes import Samples, Worker, Zygote, heard, recording

EMBEDDED = sorted(entry.id for entry in catalogue.load(TOP / "etc/models.d").values() if entry.embedded)
SPEAKERS = ["hibari", "kokoro-82m"]
RATE = 24_000
MIB = 2**20

JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."
BASKETS = (
    "the English forwarded to the French baskets of flowers of which they had made a plentiful provision to greet the "
    "arrival of the young princess the French in return invited the English to a supper which was to be given the "
    "next day"
)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


LONG_PROMPT = """We observe today not a victory of party, but a celebration of freedom, symbolizing an end as well as a
beginning, signifying renewal as well as change. For I have sworn before you and Almighty God the same solemn oath our
forebears prescribed nearly a century and three quarters ago. The world is very different now. For man holds in his
mortal hands the power to abolish all forms of human poverty and all forms of human life. And yet the same revolutionary
beliefs for which our forebears fought are still at issue around the globe, the belief that the rights of man come not
from the generosity of the state, but from the hand of God. We dare not forget today that we are the heirs of that first
revolution. Let the word go forth from this time and place, to friend and foe alike, that the torch has been passed to a
new generation of Americans, born in this century, tempered by war, disciplined by a hard and bitter peace, proud of our
ancient heritage, and unwilling to witness or permit the slow undoing of those human rights to which this Nation has
always been committed, and to which we are committed today at home and around the world."""
"""More than the 223 tokens that Whisper takes (the inaugural address of 1961, in the public domain)."""


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * PCM_RATE_IN), np.float32)


def for_whisper(speech: Samples) -> Samples:
    """24 kHz to 16 kHz; the mean of neighbours keeps most of what would fold back out."""
    smooth = (speech[:-1] + speech[1:]) / 2
    return np.asarray(np.interp(np.arange(0, smooth.size, 1.5), np.arange(smooth.size), smooth), np.float32)


# --- every engine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", EMBEDDED)
def test_workers_forked_one_after_another_from_one_zygote_all_work(
    model: str, zygote_of: Callable[[str], Zygote], entries: dict[str, ModelEntry]
) -> None:
    zygote = zygote_of(model)
    for _ in range(2):
        worker = zygote.fork()
        if entries[model].task is Task.TRANSCRIBE:
            segments, _ = worker.transcribe(recording("jfk"))
            assert words("".join(segment.text for segment in segments)) == words(JFK)
        else:
            assert worker.speak("Good morning.").size > RATE / 2
        assert zygote.end(worker) == 0


@pytest.mark.parametrize("model", EMBEDDED)
def test_a_prepared_zygote_has_one_thread_and_has_written_nothing(
    model: str, zygote_of: Callable[[str], Zygote]
) -> None:
    """A second thread makes forking unsafe. Files would be caches, or the telemetry that onnxruntime comes with."""
    zygote = zygote_of(model)
    assert len(list(Path(f"/proc/{zygote.process.pid}/task").iterdir())) == 1
    assert list(zygote.log.with_suffix("").rglob("*")) == []


@pytest.mark.parametrize("model", SPEAKERS)
def test_two_texts_spoken_at_once_sound_like_each_alone(model: str, zygote_of: Callable[[str], Zygote]) -> None:
    worker = zygote_of(model).fork()
    texts = ["The first of the two.", "And here is another one!"]
    alone = [worker.speak(text) for text in texts]
    jobs = [worker.begin(text=text) for text in texts]
    together = [heard(worker.finish(job)[0]) for job in jobs]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)
    worker.close()


def long_work(worker: Worker, model: str, task: Task) -> int:
    """Begin a job that is not over when its first result has come."""
    if task is Task.TRANSCRIBE:
        speech = np.concatenate([recording("librispeech-6930-75918-0001"), silence(3), recording("jfk"), silence(3)])
        return worker.begin(np.tile(speech, 2), language="en", words=True)
    return worker.begin(text=" ".join(f"Number {n}." for n in range(90 if model == "hibari" else 4)))


def results(messages: list[Message]) -> list[object]:
    """What a client gets of a job's messages, whichever job it was."""
    if any(isinstance(message, AudioChunk) for message in messages):
        return [message.pcm for message in messages if isinstance(message, AudioChunk)]
    return [replace(message, job=0) for message in messages if isinstance(message, Segment)]


@pytest.mark.parametrize("model", EMBEDDED)
def test_jobs_that_stand_still_in_the_middle_end_as_if_they_had_not(
    model: str, zygote_of: Callable[[str], Zygote], entries: dict[str, ModelEntry]
) -> None:
    """Two of them, so that two generators are open while a third job is served from beginning to end."""
    task = entries[model].task
    worker = zygote_of(model).fork()
    alone, _ = worker.finish(long_work(worker, model, task))
    jobs: dict[int, list[Message]] = {}
    for _ in range(2):
        job = long_work(worker, model, task)
        jobs[job] = [worker.next(job)]
        worker.pause(job)
        while not isinstance(message := worker.next(job), Paused):
            assert not isinstance(message, Done), "it was over before it could stand still"
            jobs[job].append(message)
    if task is Task.TRANSCRIBE:
        segments, _ = worker.transcribe(recording("jfk"))
        assert words("".join(segment.text for segment in segments)) == words(JFK)
    else:
        assert worker.speak("Good morning.").size > RATE / 2
    for job, so_far in jobs.items():
        assert worker.brought(job) == []
        assert len(results(so_far)) < len(results(alone))
        worker.resume(job)
        rest, end = worker.finish(job)
        assert isinstance(end, Done)
        assert not end.aborted
        assert results(so_far + rest) == results(alone)
    worker.close()


@pytest.mark.parametrize("model", EMBEDDED)
def test_after_warming_it_serves_as_before(
    model: str, zygote_of: Callable[[str], Zygote], entries: dict[str, ModelEntry]
) -> None:
    worker = zygote_of(model).fork()
    worker.warm()
    if entries[model].task is Task.TRANSCRIBE:
        segments, _ = worker.transcribe(recording("jfk"))
        assert words("".join(segment.text for segment in segments)) == words(JFK)
    else:
        assert worker.speak("Good morning.").size > RATE / 2
    worker.close()


# --- want of memory -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def short_of_memory(pid: int, more_bytes: int) -> Iterator[None]:
    """Inside, the process may have only so much more address space than it has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    used_bytes = pages * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (used_bytes + more_bytes, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.mark.parametrize("model", ["whisper-base", "kokoro-82m"])
def test_a_load_without_enough_memory_says_so_and_the_next_one_works(
    model: str, zygote_of: Callable[[str], Zygote]
) -> None:
    zygote = zygote_of(model)
    with short_of_memory(zygote.process.pid, 30 * MIB):
        refused = zygote.fork(expect=Failed)
        assert isinstance(refused.came_up, Failed)
        assert refused.came_up.error.code == "out_of_memory"
        assert zygote.end(refused) == 1
    zygote.fork().close()


def test_a_request_without_enough_memory_says_so_and_the_next_one_works(zygote_of: Callable[[str], Zygote]) -> None:
    worker = zygote_of("kokoro-82m").fork()
    assert worker.speak("Good morning.").size
    with short_of_memory(worker.pid, 40 * MIB):
        refusal = worker.refusal(text="A sentence that is so long, and then longer, " * 4)
        assert refusal.error.code == "out_of_memory"
    assert worker.speak("Good morning.").size > RATE / 2
    worker.close()


# --- speaking -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=SPEAKERS)
def speaker(request: pytest.FixtureRequest, hibari: Worker, kokoro: Worker) -> Worker:
    return hibari if request.param == "hibari" else kokoro


@pytest.mark.parametrize("text", ["", "  \n ", "👍🎉", "→", "こんにちは", "\u200b"])
def test_text_without_anything_to_say_is_refused(speaker: Worker, text: str) -> None:
    refusal = speaker.refusal(text=text)
    assert refusal.error.code == "unspeakable_text"
    assert refusal.error.param == "input"


@pytest.mark.parametrize("text", [".", "...", "…！", " ? "])
def test_a_mark_alone_is_a_short_silence(speaker: Worker, text: str) -> None:
    """Home Assistant checks a voice by having it say a full stop."""
    audio = speaker.speak(text)
    assert audio.size == 0.3 * RATE
    assert not audio.any()


def test_markup_and_emoji_are_not_read_aloud(speaker: Worker) -> None:
    assert np.array_equal(
        speaker.speak("## **Hello** <b>my</b> [friend](https://example.org) 👋"), speaker.speak("Hello my friend.")
    )


@pytest.mark.parametrize("voice", ["nobody", "../voices/af_heart", "emma\0"])
def test_a_voice_that_is_not_there_is_refused(speaker: Worker, voice: str) -> None:
    assert speaker.refusal(text="Hello.", voice=voice).error.code == "voice_not_found"


def test_a_letter_repeated_without_end_is_cut(hibari: Worker) -> None:
    assert hibari.speak("A" * 600).size < 15 * RATE


@pytest.mark.parametrize("text", ["1" * 40, "1,000" * 20, "9" * 5000, "$1,2.3.4", "٣٤", "½ x²", "\x00 a"])
def test_odd_numbers_and_signs_do_not_break_it(hibari: Worker, text: str) -> None:
    assert hibari.speak(text).size


def test_hibari_says_the_english_part_of_a_text_and_refuses_chinese_alone(hibari: Worker) -> None:
    assert np.array_equal(hibari.speak("你好。\nHello."), hibari.speak("Hello."))
    assert hibari.refusal(text="你好。").error.code == "unspeakable_text"


def test_speed_is_applied_within_the_range_and_the_rest_reported(hibari: Worker) -> None:
    slow, fast = (hibari.speak("How fast is this sentence?", speed=speed) for speed in (0.5, 2.0))
    assert slow.size > 2 * fast.size
    started = hibari.next(job := hibari.begin(text="Faster!", speed=4.0))
    assert isinstance(started, AudioStart)
    assert started.tempo == 2.0
    hibari.finish(job)


def test_abort_stops_between_sentences(kokoro: Worker) -> None:
    job = kokoro.begin(text="One sentence. " * 12)
    while not isinstance(kokoro.next(job), AudioChunk):
        pass
    kokoro.abort(job)
    messages, end = kokoro.finish(job)
    assert isinstance(end, Done)
    assert end.aborted
    assert heard(messages).size < 6 * RATE


def test_kokoro_chooses_the_voice_by_the_script(kokoro: Worker) -> None:
    assert np.array_equal(kokoro.speak("你好。"), kokoro.speak("你好。", "zf_xiaobei"))
    assert np.array_equal(kokoro.speak("Hello."), kokoro.speak("Hello.", "af_heart"))
    assert kokoro.speak("Hello.", "bf_emma").size > RATE / 2


def test_kokoro_starts_to_speak_at_once_and_pauses_between_sentences(kokoro: Worker) -> None:
    loud = np.flatnonzero(np.abs(kokoro.speak("你好。你好。")) > 0.02) / RATE
    assert loud[0] < 0.15
    assert 0.4 < np.diff(loud).max() < 1.0


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("二〇二四年", "二零二四年"),
        ("８点", "八点"),
        ("8:05", ""),
        ("现在8:05", "现在八点零五分"),
        ("电话13800138000", "电话一三八零零一三八零零零"),
        ("价格¥1,000", "价格一千元"),
        ("气温-5℃", "气温负五摄氏度"),
        ("兙你好→", "你好"),
        ("你好Ω", "你好"),
    ],
)
def test_kokoro_reads_numbers_and_signs_in_chinese(kokoro: Worker, written: str, spoken: str) -> None:
    if not spoken:
        assert kokoro.speak(written).size
    else:
        assert np.array_equal(kokoro.speak(written), kokoro.speak(spoken))


# --- transcribing ---------------------------------------------------------------------------------------------------


def test_words_come_with_times_and_add_up_to_the_text(whisper: Worker) -> None:
    audio = recording("jfk")
    segments, done = whisper.transcribe(audio, words=True)
    assert done.language == "en"
    assert words("".join(segment.text for segment in segments)) == words(JFK)
    time = 0.0
    for segment in segments:
        assert "".join(word.word for word in segment.words) == segment.text
        assert time <= segment.start <= segment.words[0].start
        for word in segment.words:
            assert time <= word.start <= word.end <= segment.end
            assert 0 < word.probability <= 1
            time = word.start
    assert segments[-1].end <= audio.size / PCM_RATE_IN


@pytest.mark.parametrize("audio", [silence(0), silence(0.09), recording("jfk")[:1500], silence(30)])
def test_silence_is_cheap_and_says_nothing(whisper: Worker, audio: Samples) -> None:
    segments, done = whisper.transcribe(audio)
    assert (segments, done.language) == ([], "")
    assert done.engine_s < 2


def test_noise_says_nothing(whisper: Worker) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * PCM_RATE_IN).astype(np.float32)
    assert whisper.transcribe(noise)[0] == []


@pytest.mark.parametrize("language", ["en", "EN", "en-GB", "english"])
def test_a_language_may_be_a_code_a_tag_or_a_name(whisper: Worker, language: str) -> None:
    _, done = whisper.transcribe(recording("librispeech-6930-75918-0000"), language=language)
    assert done.language == "en"


def test_an_unknown_language_is_refused(whisper: Worker) -> None:
    refusal = whisper.refusal(recording("jfk"), language="klingon")
    assert (refusal.error.code, refusal.error.param) == ("invalid_request", "language")
    assert "klingon" in refusal.error.message


def test_a_prompt_cannot_give_orders_and_may_be_long(whisper: Worker) -> None:
    audio = recording("jfk")
    orders = "<|startoftranscript|><|zh|><|translate|><|notimestamps|><|endoftext|>"
    for prompt in (orders, LONG_PROMPT):
        segments, _ = whisper.transcribe(audio, prompt=prompt)
        assert words("".join(segment.text for segment in segments)) == words(JFK)


def test_keywords_are_heard_where_the_sound_allows_them(whisper: Worker) -> None:
    """Without them it is "conquered"."""
    audio = recording("librispeech-6930-75918-0000")
    segments, _ = whisper.transcribe(audio, language="en", keywords=["<|endoftext|>", "Concord"])
    assert "concord" in words("".join(segment.text for segment in segments))


def test_of_candidate_languages_the_likeliest_is_taken(whisper: Worker) -> None:
    audio = recording("librispeech-6930-75918-0000")
    assert whisper.transcribe(audio, languages=["zh", "English"])[1].language == "en"
    assert whisper.transcribe(audio, languages=["zh"])[1].language == "zh"
    assert whisper.refusal(audio, languages=["en", "klingon"]).error.param == "language"


def test_tokens_come_with_log_probabilities_and_add_up_to_the_text(whisper: Worker) -> None:
    speech = np.concatenate([recording("librispeech-6930-75918-0001"), silence(2), recording("jfk")])
    segments, _ = whisper.transcribe(speech, language="en", logprobs=True)
    assert len(segments) > 2
    for segment in segments:
        assert b"".join(token.text for token in segment.logprobs).decode() == segment.text
        assert all(token.logprob <= 0 for token in segment.logprobs)
        mean = float(np.mean([token.logprob for token in segment.logprobs]))
        assert abs(mean - segment.avg_logprob) < 0.3, "the model's own mean is over the times too"


def test_what_it_hears_it_can_write_in_english(whisper: Worker, kokoro: Worker) -> None:
    audio = for_whisper(kokoro.speak("今天天气很好，我们去公园散步。"))
    segments, done = whisper.transcribe(audio, translate_to="en")
    assert done.language == "zh", "what was spoken"
    assert {"weather", "park"} & set(words("".join(segment.text for segment in segments)))
    english = recording("jfk")
    assert whisper.transcribe(english, translate_to="en")[0][0].text == whisper.transcribe(english)[0][0].text
    assert whisper.refusal(english, translate_to="fr").error.param == "translate_to"


def test_long_audio_is_heard_to_its_end_and_no_word_is_cut(whisper: Worker) -> None:
    speech = recording("librispeech-6930-75918-0001")
    # Five minutes are worked on at once: the first speech runs over that border, the second ends the audio.
    audio = np.concatenate([silence(293), speech, silence(40), speech])
    segments, _ = whisper.transcribe(audio, language="en")
    heard_words = words("".join(segment.text for segment in segments))
    missed = len(words(BASKETS)) * 2 - len([word for word in heard_words if word in words(BASKETS)])
    assert abs(missed) <= 4
    assert heard_words.count("baskets") == heard_words.count("supper") == 2
    assert 292 < segments[0].start < 295
    assert audio.size / PCM_RATE_IN - 2 < segments[-1].end <= audio.size / PCM_RATE_IN
    times = [time for segment in segments for time in (segment.start, segment.end)]
    assert times == sorted(times)


def test_chinese_comes_out_in_the_script_that_was_asked_for(whisper: Worker, kokoro: Worker) -> None:
    audio = for_whisper(kokoro.speak("今天天气很好，我们去公园散步。"))
    segments, done = whisper.transcribe(audio, words=True)
    text = "".join(segment.text for segment in segments)
    assert done.language == "zh"
    assert len(set("今天气很好我们去公园散步") & set(text)) >= 10
    assert "".join(word.word for segment in segments for word in segment.words) == text
    traditional = "".join(segment.text for segment in whisper.transcribe(audio, language="zh-TW")[0])
    assert {"氣", "們"} <= set(traditional)
    assert not {"气", "们"} & set(traditional)


def test_recordings_that_share_calls_give_exactly_what_each_gives_alone(
    kokoro: Worker,
    runtime_python: Callable[[str], Path],
    model_dir: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """In two languages, of several lengths, with the times of words; to the last bit of every number."""
    english = [recording(name) for name in ("jfk", "librispeech-6930-75918-0000", "librispeech-6930-75918-0001")]
    chinese = for_whisper(kokoro.speak("今天天气很好，我们去公园散步。"))
    np.savez(tmp_path / "speech.npz", en0=english[0], zh1=chinese, en2=english[1], en3=english[2])
    ran = subprocess.run(
        [
            *(runtime_python("faster_whisper"), TOP / "tests/engines/sharing.py"),
            *(model_dir("whisper-base"), tmp_path / "speech.npz"),
        ],
        env={"PYTHONPATH": str(TOP / "daemon"), "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    told = json.loads(ran.stdout)
    assert told["together"] == told["alone"]
    assert all(told["alone"])
    assert told["calls"] == [["generate", 4], *sorted([["align", 3], ["align", 1]], key=told["calls"].index)]


def test_two_recordings_at_once_are_not_mixed_up(whisper: Worker) -> None:
    names = ["jfk", "librispeech-6930-75918-0000"]
    alone = [whisper.transcribe(recording(name), language="en")[0] for name in names]
    jobs = [whisper.begin(recording(name), language="en") for name in names]
    for job, expected in zip(jobs, alone, strict=True):
        messages, _ = whisper.finish(job)
        assert [m.text for m in messages if isinstance(m, Segment)] == [segment.text for segment in expected]


def test_abort_before_the_end_gives_no_more_segments(whisper: Worker) -> None:
    speech = np.concatenate([recording("librispeech-6930-75918-0001"), silence(3)])
    job = whisper.begin(np.tile(speech, 6), language="en")
    first = whisper.next(job)
    assert isinstance(first, Segment)
    whisper.abort(job)
    messages, end = whisper.finish(job)
    assert isinstance(end, Done)
    assert end.aborted
    assert all(isinstance(message, Segment) and message.end < 90 for message in messages)


def test_a_model_with_a_file_missing_says_which(
    runtime_python: Callable[[str], Path], model_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    """faster-whisper would fetch the tokenizer from a network."""
    (tmp_path / "model").mkdir()
    for file in ("model.bin", "config.json"):
        (tmp_path / "model" / file).symlink_to(model_dir("whisper-base") / file)
    (tmp_path / "cache").mkdir()
    spec = EngineSpec("faster_whisper", "broken", str(tmp_path / "model"))
    zygote = Zygote(runtime_python("faster_whisper"), spec, tmp_path / "cache")
    worker = zygote.fork(expect=Failed)
    assert isinstance(worker.came_up, Failed)
    assert worker.came_up.error.code == "model_not_installed"
    assert "tokenizer.json" in worker.came_up.error.message
    assert zygote.end(worker) == 1
    zygote.close()
