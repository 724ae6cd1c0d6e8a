"""Bodies that are too much, too slow or broken: refused early, in a way that clients can see, and nothing is kept."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import select
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from clients import LONG_TEXT, SPEECH, TRANSCRIPTIONS, Client, Remains, client, held_bytes, samples
from daemons import AUDIO, Daemon, form, running, say, transcribe
from scraping import until
from sounds import muxed

FILE = (AUDIO / "librispeech-6930-75918-0000.wav").read_bytes()
TOO_LARGE = "upload_too_large"
SETTINGS = '[server]\naudio_memory = "10MB"\nupload_limit = "8MB"\nupload_stall = "400ms"\n'
LARGE = bytes(6_000_000)
FORM = "multipart/form-data; boundary=b"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """A daemon with 10 MB for audio; its models and its media processes are up."""
    with running(tmp_path_factory.mktemp("small"), state_dir, SETTINGS) as daemon:
        assert transcribe(daemon, muxed("flac", "flac", np.zeros(1600), 16_000))[0] == 200
        assert say(daemon)[0] == 200
        yield daemon


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """One whose memory for audio is nearly all taken, by an upload of which more may come for an hour."""
    settings = SETTINGS.replace("400ms", "1h")
    with running(tmp_path_factory.mktemp("taken"), state_dir, settings) as daemon, client(daemon) as one:
        one.send_head(TRANSCRIPTIONS, FORM, 7_000_000)
        until(lambda: held_bytes(daemon) == 7_000_000)
        yield daemon


def connection(daemon: Daemon) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(daemon.url).netloc, timeout=60)


# --- the bound over all audio -----------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_before_it_is_sent(taken: Daemon) -> None:
    with client(taken) as one:
        one.send_head(TRANSCRIPTIONS, FORM, 6_000_000)
        answer = one.answer()
        error = json.loads(answer.read())["error"]
    assert (answer.status, error["code"]) == (503, "queue_full")
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["retry-after-ms"] == "5000"
    assert answer.headers["x-should-retry"] is None
    numbers = re.findall(r"[\d.]+ MiB", error["message"])
    assert numbers == ["6.68 MiB", "9.54 MiB", "5.72 MiB"], error["message"]
    assert held_bytes(taken) == 7_000_000


def test_who_asks_first_is_spared_the_sending(taken: Daemon) -> None:
    with client(taken) as one:
        one.send_head(TRANSCRIPTIONS, FORM, 6_000_000, Expect="100-continue")
        raw = one.sock.recv(65536)
        assert raw.startswith(b"HTTP/1.1 503 "), raw
        while raw := one.sock.recv(65536):
            assert b"100 Continue" not in raw


def test_who_asks_and_may_is_told_so(taken: Daemon) -> None:
    body, content_type = form(FILE, model="nonesuch")
    with client(taken) as one:
        one.send_head(TRANSCRIPTIONS, content_type, len(body), Expect="100-continue")
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            raw += one.sock.recv(1)
        assert raw == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.sock.sendall(body)
        assert one.error()[1]["code"] == "model_not_found"


def test_clients_that_send_everything_first_see_the_refusal_and_no_reset(taken: Daemon) -> None:
    body, content_type = form(LARGE, model="whisper-1")
    kept = connection(taken)
    for _ in range(3):
        kept.request("POST", TRANSCRIPTIONS, body, {"Content-Type": content_type})
        with kept.getresponse() as answer:
            assert (answer.status, json.loads(answer.read())["error"]["code"]) == (503, "queue_full")
    kept.request("GET", "/health/live")
    with kept.getresponse() as answer:
        assert answer.status == 200, "and the connection is as good as before"
    kept.close()
    assert transcribe(taken, LARGE)[0] == 503, "a client that wants the connection closed sees the same"


def test_the_sdk_sees_the_refusal_and_when_to_try_again(taken: Daemon) -> None:
    with (
        openai.OpenAI(base_url=f"{taken.url}/v1", api_key="none", max_retries=0) as one,
        pytest.raises(openai.InternalServerError) as refused,
    ):
        one.audio.transcriptions.create(model="whisper-1", file=("a.wav", LARGE))
    assert refused.value.status_code == 503
    assert refused.value.code == "queue_full"
    assert refused.value.response.headers["retry-after-ms"] == "5000"


def test_an_upload_that_does_not_say_how_long_it_is_is_refused_when_it_grows_too_long(taken: Daemon) -> None:
    remains = held_bytes(taken)
    body, content_type = form(LARGE, model="whisper-1")
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    kept = connection(taken)
    kept.request("POST", TRANSCRIPTIONS, pieces, {"Content-Type": content_type}, encode_chunked=False)
    with kept.getresponse() as answer:
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (503, "queue_full")
    kept.close()
    assert held_bytes(taken) == remains


def test_what_fits_is_served_beside_what_is_refused(taken: Daemon) -> None:
    assert transcribe(taken, FILE)[0] == 200
    assert say(taken)[0] == 200


def test_speech_needs_no_room_of_its_own_before_it_is_there(taken: Daemon) -> None:
    status, audio = say(taken, LONG_TEXT)
    assert (status, len(audio) > 10_000_000) == (200, True)


def test_speech_with_a_recording_needs_room_for_it(small: Daemon, taken: Daemon) -> None:
    for daemon, length, refusal in ((taken, 5_000_000, (503, "queue_full")), (small, 12_000_000, (413, TOO_LARGE))):
        with client(daemon) as one:
            one.send_head(SPEECH, "application/json", length)
            status, error = one.error()
        assert ((status, error["code"]), error["param"]) == (refusal, None)
    remains = Remains(small)
    body = json.dumps({"model": "hibari", "input": "Hello.", "ref_audio": "A" * 3_000_000}).encode()
    with client(small) as one:
        one.send_head(SPEECH, "application/json", None)
        for start in range(0, len(body), 100_000):
            one.chunk(body[start : start + 100_000])
        until(lambda: held_bytes(small) > 1_900_000)
        one.chunk(b"")
        status, error = one.error()
    assert (status, error["code"]) == (400, "voice_not_spoken")
    remains.check()


def test_room_that_is_free_again_can_be_had(small: Daemon) -> None:
    remains = Remains(small)
    first = Client(small)
    first.send_head(TRANSCRIPTIONS, FORM, 7_000_000)
    until(lambda: held_bytes(small) == 7_000_000)
    assert transcribe(small, LARGE)[0] == 503
    first.leave()
    remains.check()
    assert transcribe(small, LARGE)[0] == 400, "it is no audio, but nobody minds its size"
    remains.check()


def test_a_recording_that_alone_would_need_more_than_there_is_is_told_so(small: Daemon) -> None:
    """Ten minutes of silence: 0.1 MB as FLAC, 19 MB as a model hears it. To try again would not help."""
    remains = Remains(small)
    silence = muxed("flac", "flac", np.zeros(600 * 16_000), 16_000)
    assert len(silence) < 200_000
    status, body = transcribe(small, silence)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (413, "upload_too_large")
    assert "server.audio_memory" in error["message"]
    remains.check()


def test_a_declared_length_beyond_the_limit_is_refused_unread(small: Daemon) -> None:
    for path, length, says in ((TRANSCRIPTIONS, 10_000_000, "8 MB"), (SPEECH, 30_000_000, "than this path takes")):
        with client(small) as one:
            one.send_head(path, FORM, length)
            status, error = one.error()
        assert (status, error["code"]) == (413, "upload_too_large")
        assert says in str(error["message"])


def test_the_figure_is_zero_after_a_storm(small: Daemon) -> None:
    """Uploads that succeed, fail in every way, are refused, and are left in the middle, all at once."""
    remains = Remains(small)
    chance = random.Random(7)
    answers: list[int] = []

    def succeed() -> None:
        answers.append(transcribe(small, FILE, model="whisper-1")[0])

    def be_no_audio() -> None:
        answers.append(transcribe(small, bytes(300_000))[0])

    def be_bad() -> None:
        answers.append(transcribe(small, FILE, response_format="xml")[0])

    def be_too_large() -> None:
        answers.append(transcribe(small, bytes(9_500_000))[0])

    def be_many() -> None:
        answers.append(transcribe(small, LARGE)[0])

    def leave_while_uploading() -> None:
        with client(small) as one:
            one.send_head(TRANSCRIPTIONS, FORM, 400_000)
            one.sock.sendall(bytes(chance.randrange(100_000)))

    def leave_while_waiting() -> None:
        with client(small) as one:
            one.send_transcription(FILE)

    def leave_while_spoken_to() -> None:
        with client(small, 8192) as one:
            one.send_speech(LONG_TEXT[: chance.randrange(200, 4000)])
            one.sock.recv(chance.randrange(1, 10_000))

    deeds = [
        *(succeed, be_no_audio, be_bad, be_too_large, be_many),
        *(leave_while_uploading, leave_while_waiting, leave_while_spoken_to),
    ]
    for _ in range(2):
        threads = [threading.Thread(target=deed) for deed in deeds * 2]
        chance.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert set(answers) == {200, 400, 413, 503}
    remains.check()
    assert held_bytes(small) == 0
    assert transcribe(small, FILE)[0] == 200


# --- bodies that stand still, or are broken ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, SPEECH])
def test_a_client_that_stops_sending_is_told_so_and_freed(small: Daemon, path: str) -> None:
    remains = Remains(small)
    with client(small) as one:
        one.send_head(path, FORM, 500_000)
        one.sock.sendall(b"--b\r\n")
        answer = one.answer()
        error = json.loads(answer.read())["error"]
        assert (answer.status, error["code"]) == (408, "upload_stalled")
        assert answer.headers["Connection"] == "close"
        assert one.sock.recv(1) == b""
    remains.check()


def dribble(one: Client, piece: bytes, times: int) -> bool:
    """Send a piece every 40 ms, until all are sent or an answer comes; whether one came."""
    for _ in range(times):
        if select.select([one.sock], [], [], 0.04)[0]:
            return True
        one.sock.sendall(piece)
    return False


def test_a_byte_at_a_time_is_standing_still(small: Daemon) -> None:
    with client(small) as one:
        one.send_head(TRANSCRIPTIONS, FORM, 500_000)
        assert dribble(one, b"-", times=500)
        assert one.error()[1]["code"] == "upload_stalled"


def test_a_slow_upload_that_goes_on_is_taken(small: Daemon) -> None:
    """Three times as long as it may stand still."""
    body, content_type = form(FILE[:-1], model="whisper-1")
    piece = len(body) // 30 + 1
    with client(small) as one:
        one.send_head(TRANSCRIPTIONS, content_type, None)
        for start in range(0, len(body), piece):
            assert not select.select([one.sock], [], [], 0.04)[0]
            one.chunk(body[start : start + piece])
        one.chunk(b"")
        answer = one.answer()
        assert answer.status in (200, 400)
        assert b"stalled" not in answer.read()


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, SPEECH])
def test_broken_framing_is_a_bad_request(small: Daemon, path: str) -> None:
    remains = Remains(small)
    in_flight = f'audiod_requests_in_flight{{endpoint="{path}"}}'
    with client(small) as one:
        one.send_head(path, FORM, None)
        until(lambda: samples(small)[in_flight] == 1)
        one.sock.sendall(b"5\r\n--b\r\n\r\nno number\r\n")
        assert one.answer().status == 408, "nothing that came after could be read"
    with client(small) as one:
        one.send_head(path, FORM, 1000, Content_Encoding="gzip")
        one.sock.sendall(os.urandom(1000))
        status, error = one.error()
        assert (status, error["code"]) == (400, "invalid_request")
    remains.check()


def test_fields_without_end_are_refused(small: Daemon) -> None:
    remains = Remains(small)
    field = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + b"y" * 60_000 + b"\r\n"
    kept = connection(small)
    kept.request("POST", TRANSCRIPTIONS, field * 100 + b"--b--\r\n", {"Content-Type": FORM})
    with kept.getresponse() as answer:
        assert answer.status == 400
        assert "fields" in json.loads(answer.read())["error"]["message"]
    kept.close()
    remains.check()


def test_a_refused_key_is_seen_by_a_client_in_the_middle_of_its_upload(tmp_path: Path, state_dir: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with running(tmp_path, state_dir, f'[server]\napi_keys_file = "{tmp_path / "keys"}"\n') as daemon:
        body, content_type = form(bytes(30_000_000), model="whisper-1")
        kept = connection(daemon)
        kept.request("POST", TRANSCRIPTIONS, body, {"Content-Type": content_type})
        with kept.getresponse() as answer:
            assert answer.status == 401
        kept.close()
        assert samples(daemon)["audiod_audio_memory_bytes"] == 0


def test_the_bound_follows_the_configuration(small: Daemon) -> None:
    assert samples(small)["audiod_audio_memory_limit_bytes"] == 10_000_000
    good = small.config.read_text()
    try:
        small.config.write_text(good.replace('audio_memory = "10MB"', 'audio_memory = "5MB"'))
        assert small.ctl("reload").returncode == 0
        assert samples(small)["audiod_audio_memory_limit_bytes"] == 5_000_000
        assert transcribe(small, LARGE)[0] == 413
        small.config.write_text(good.replace('audio_memory = "10MB"', "audio_memory = 0"))
        assert small.ctl("reload").returncode == 0
        total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
        assert 0 < samples(small)["audiod_audio_memory_limit_bytes"] <= total / 8
    finally:
        small.config.write_text(good)
        small.ctl("reload")
