"""Speech over a WebSocket, against a real daemon: whole texts, texts in pieces, cancelling, mistakes, endings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from clients import LONG_TEXT, cancelled, held_bytes, leases
from daemons import Daemon, running, say
from scripted_daemons import MODEL, Gate, ScriptedDaemon, scripted
from speech_sockets import Utterance, connected, until_async

TWO = "Hello there, my friend. How are you today?"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[ScriptedDaemon]:
    """With a model that does what it is told."""
    with scripted(tmp_path_factory.mktemp("scripted"), state_dir) as started:
        yield started


async def spoken(daemon: Daemon, text: str, **more: object) -> bytes:
    """The same text through the REST endpoint."""
    status, pcm = await asyncio.to_thread(say, daemon, text, response_format="pcm", model="hibari", **more)
    assert status == 200
    return pcm


async def test_a_whole_text_gives_header_audio_and_end(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start(TWO)
        heard = await socket.rest()
    assert heard.header == {
        "type": "audio.start",
        "model": "hibari",
        "voice": "heart",
        "format": "pcm",
        "sample_format": "s16le",
        "sample_rate": 24_000,
        "channels": 1,
    }
    assert heard.pcm == await spoken(daemon, TWO)
    assert heard.frames > 1
    assert (heard.end["status"], heard.end["characters"]) == ("completed", len(TWO))
    timings = heard.end["timings"]
    assert timings["audio_s"] == pytest.approx(heard.audio_s, abs=0.001)
    assert 0 < timings["first_audio_s"] <= timings["total_s"]
    assert 0 < timings["engine_s"] <= timings["total_s"]


@pytest.mark.parametrize("speed", [0.25, 4.0])
async def test_speed_is_as_in_the_rest_endpoint(daemon: Daemon, speed: float) -> None:
    async with connected(daemon) as socket:
        await socket.start(TWO, speed=speed)
        assert (await socket.rest()).pcm == await spoken(daemon, TWO, speed=speed)


async def test_the_first_sentence_is_heard_before_the_second_has_come(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start()
        heard = Utterance()
        said = await socket.next()
        assert isinstance(said, dict)
        heard.header = said
        for piece in ("Hello th", "ere, my fri", "end. Ho"):
            await socket.text(piece)
        first = await spoken(daemon, "Hello there, my friend.")
        while len(heard.pcm) < len(first):
            audio = await socket.next()
            assert isinstance(audio, bytes)
            heard.pcm += audio
        assert heard.pcm == first
        await socket.text("w are you today?")
        await socket.done()
        await socket.rest(heard)
    assert heard.pcm == first + await spoken(daemon, "How are you today?")
    assert (heard.end["status"], heard.end["characters"]) == ("completed", len(TWO))


@pytest.mark.parametrize("text", ["Hello there.", "Hello there. "])
async def test_a_sentence_is_heard_when_nothing_follows_it(daemon: Daemon, text: str) -> None:
    async with connected(daemon) as socket:
        await socket.start()
        await socket.text(text)
        assert isinstance(await socket.next(), dict)
        assert isinstance(await socket.next(), bytes)
        await socket.done()
        assert (await socket.rest(Utterance({"type": "seen"}))).end["status"] == "completed"


async def test_what_cannot_be_spoken_between_sentences_is_passed_over(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start(input="")
        for piece in ("One. ", "👍 ", "\n\n", "“…” ", "Two.", " 🎉"):
            await socket.text(piece)
        await socket.done()
        heard = await socket.rest()
    assert (heard.end["status"], heard.errors) == ("completed", [])
    assert heard.audio_s > 0.8


@pytest.mark.parametrize("text", ["...", ".", "Hi", "1234"])
async def test_short_texts_are_spoken(daemon: Daemon, text: str) -> None:
    async with connected(daemon) as socket:
        await socket.start()
        await socket.text(text)
        await socket.done()
        assert (await socket.rest()).pcm == await spoken(daemon, text)


async def test_utterances_follow_each_other_on_one_connection(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        for text in ("One.", "Two.", "Three."):
            await socket.start(text)
            assert (await socket.rest()).pcm == await spoken(daemon, text)


async def test_a_second_start_is_refused_while_the_first_goes_on(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start()
        assert isinstance(await socket.next(), dict)
        await socket.start("Two.")
        assert (await socket.error())["param"] == "type"
        await socket.text("One.")
        await socket.done()
        assert (await socket.rest(Utterance({"type": "seen"}))).end["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "nope"}, "model_not_found", "model"),
        ({"model": "whisper-base"}, "unsupported_task", "model"),
        ({"voice": "../../etc/passwd"}, "voice_not_found", "voice"),
        ({"voice": 5}, "invalid_request", "voice"),
        ({"speed": 4.1}, "invalid_request", "speed"),
        ({"speed": "fast"}, "invalid_request", "speed"),
        ({"input": "  "}, "invalid_request", "input"),
        ({"input": "a" * 4097}, "invalid_request", "input"),
        ({"response_format": "mp3"}, "invalid_request", "response_format"),
        ({"response_format": "ogg"}, "invalid_request", "response_format"),
        ({"instructions": "x" * 4097}, "invalid_request", "instructions"),
        ({"timeout": 0}, "invalid_request", "timeout"),
    ],
)
async def test_a_refused_start_keeps_the_connection(
    daemon: Daemon, fields: dict[str, Any], code: str, param: str
) -> None:
    async with connected(daemon) as socket:
        await socket.start(**({"input": "Hello."} | fields))
        error = await socket.error()
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["code"], error["param"]) == (code, param)
        await socket.start("Hello.")
        assert (await socket.rest()).end["status"] == "completed"


async def test_a_text_that_cannot_be_spoken_fails_and_keeps_the_connection(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start("今天天气很好。")
        heard = await socket.rest()
        assert (heard.errors[0]["code"], heard.end["status"]) == ("unspeakable_text", "failed")
        assert "first_audio_s" not in heard.end["timings"]
        await socket.start()
        await socket.done()
        heard = await socket.rest()
        assert (heard.errors[0]["param"], heard.end["status"]) == ("input", "failed")
        await socket.start("Hello.")
        assert (await socket.rest()).end["status"] == "completed"


async def test_what_comes_beyond_the_limit_is_refused_and_what_came_before_spoken(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start()
        await socket.text("Hello. ")
        await socket.text("a" * 4096)
        heard = await socket.rest()
        assert heard.pcm == await spoken(daemon, "Hello.")
        assert (heard.errors[0]["param"], heard.end["status"]) == ("input", "failed")
        await socket.text("more")
        assert (await socket.error())["param"] == "type"


NESTED = '{"type": "start", "model": "hibari", "zz": ' + "[" * 100_000


@pytest.mark.parametrize(
    "frame",
    ["", "hello", "[]", "null", '{"type": "begin"}', '{"model": "hibari"}', '{"type": 5}', b"\x00\x01", NESTED],
    ids=lambda frame: ascii(frame[:40]),
)
async def test_what_is_no_start_closes_the_connection(daemon: Daemon, frame: str | bytes) -> None:
    async with connected(daemon) as socket:
        await (socket.ws.send_bytes(frame) if isinstance(frame, bytes) else socket.ws.send_str(frame))
        assert (await socket.error())["type"] == "invalid_request_error"
        assert await socket.closed() == aiohttp.WSCloseCode.INVALID_TEXT


async def test_nonsense_in_the_middle_is_told_and_does_no_harm(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start()
        assert isinstance(await socket.next(), dict)
        for frame in ("hello", '{"type": "begin"}', '{"type": "input.text"}', '{"type": "input.text", "text": 5}'):
            await socket.ws.send_str(frame)
            await socket.error()
        await socket.text("Hello.")
        await socket.done()
        assert (await socket.rest(Utterance({"type": "seen"}))).pcm == await spoken(daemon, "Hello.")


async def test_text_without_an_utterance_is_an_error_and_cancel_is_none(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.cancel()
        await socket.text("Hello.")
        assert (await socket.error())["param"] == "type"
        await socket.start("Hello.")
        assert (await socket.rest()).end["status"] == "completed"


async def test_a_message_that_is_too_long_closes_the_connection(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.text("a" * 2**20)
        assert await socket.closed() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    assert (await asyncio.to_thread(say, daemon))[0] == 200


def test_a_plain_request_is_told_what_the_path_is(daemon: Daemon) -> None:
    status, body = daemon.get("/v1/audio/speech/stream")
    assert (status, "WebSocket" in json.loads(body)["error"]["message"]) == (400, True)
    assert daemon.request("POST", "/v1/audio/speech/stream", b"{}")[0] == 405


async def test_a_browser_gets_the_protocol_that_it_can_use(daemon: Daemon) -> None:
    url = f"{daemon.url}/v1/audio/speech/stream"
    protocols = ("realtime", "openai-insecure-api-key.none")
    async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=protocols) as ws:
        assert ws.protocol == "realtime"


async def test_who_takes_it_slowly_does_not_hold_the_model(daemon: Daemon) -> None:
    expected = await spoken(daemon, LONG_TEXT[:2000])
    async with connected(daemon) as socket:
        await socket.start(LONG_TEXT[:2000])
        assert isinstance(await socket.next(), dict)
        await until_async(lambda: held_bytes(daemon) > 0 and leases(daemon, "hibari") == 0)
        assert (await asyncio.to_thread(say, daemon))[0] == 200
        heard = await socket.rest(Utterance({"type": "seen"}))
    assert heard.pcm == expected
    await until_async(lambda: held_bytes(daemon) == 0)


async def test_who_leaves_in_the_middle_leaves_nothing(daemon: Daemon) -> None:
    before = cancelled(daemon, "hibari", "running") + cancelled(daemon, "hibari", "sending")
    async with connected(daemon) as socket:
        await socket.start(LONG_TEXT)
        assert isinstance(await socket.next(), dict)
        assert isinstance(await socket.next(), bytes)
    await until_async(lambda: leases(daemon, "hibari") == 0 and held_bytes(daemon) == 0)
    await until_async(
        lambda: cancelled(daemon, "hibari", "running") + cancelled(daemon, "hibari", "sending") == before + 1
    )


async def test_a_worker_that_dies_fails_the_utterance_and_not_the_connection(daemon: Daemon) -> None:
    async with connected(daemon) as socket:
        await socket.start("Hello.")
        await socket.rest()
        await socket.start(LONG_TEXT)
        assert isinstance(await socket.next(), dict)
        assert isinstance(await socket.next(), bytes)
        os.kill((await asyncio.to_thread(daemon.model, "hibari"))["worker_pid"], signal.SIGKILL)
        heard = await socket.rest(Utterance({"type": "seen"}))
        assert (heard.errors[0]["code"], heard.end["status"]) == ("worker_died", "failed")
        await socket.start("Hello.")
        assert (await socket.rest()).end["status"] == "completed"


async def test_cancel_stops_the_model_and_ends_the_utterance_at_once(made: ScriptedDaemon, tmp_path: Path) -> None:
    """The engine stands in the middle of a step: the end frame does not wait for it, the next utterance does."""
    gate, before = Gate(tmp_path), cancelled(made, MODEL, "running")
    async with connected(made) as socket:
        await socket.start(f"yield 500; read {gate}; yield 500", model=MODEL, voice="")
        assert isinstance(await socket.next(), dict)
        assert isinstance(await socket.next(), bytes)
        assert leases(made, MODEL) == 1
        await socket.cancel()
        heard = await socket.rest(Utterance({"type": "seen"}))
        assert heard.end["status"] == "cancelled"
        await socket.start("yield 300", model=MODEL, voice="")
        await asyncio.to_thread(gate.open)
        heard = await socket.rest()
        assert heard.end["status"] == "completed"
        assert heard.audio_s == pytest.approx(0.3, abs=0.01)
    assert cancelled(made, MODEL, "running") == before + 1
    assert made.model(MODEL)["leases"] == 0


async def test_cancel_drops_text_that_still_comes(made: ScriptedDaemon) -> None:
    async with connected(made) as socket:
        await socket.start(model=MODEL, voice="")
        await socket.cancel()
        await socket.text("yield 100")
        assert (await socket.rest()).end["status"] == "cancelled"
        await socket.start("yield 100", model=MODEL, voice="")
        assert (await socket.rest()).end["status"] == "completed"


async def test_pcm_is_24_khz_whatever_the_engine_speaks_at(made: ScriptedDaemon) -> None:
    """The scripted engine speaks at 16 kHz."""
    async with connected(made) as socket:
        await socket.start("yield 400; yield 600", model=MODEL, voice="")
        assert (await socket.rest()).audio_s == pytest.approx(1.0, abs=0.01)


async def test_the_daemons_stop_closes_what_is_idle_at_once_and_what_is_busy_at_its_end(
    tmp_path: Path, state_dir: Path
) -> None:
    gate = Gate(tmp_path)
    with scripted(tmp_path, state_dir) as daemon:
        async with connected(daemon) as idle, connected(daemon) as used, connected(daemon) as busy:
            for socket in (used, busy):
                await socket.start("yield 100", model=MODEL, voice="")
                assert (await socket.rest()).end["status"] == "completed"
            await busy.start(f"yield 500; read {gate}; yield 500", model=MODEL, voice="")
            assert isinstance(await busy.next(), dict)
            assert isinstance(await busy.next(), bytes)
            daemon.process.send_signal(signal.SIGTERM)
            assert await idle.closed() == aiohttp.WSCloseCode.SERVICE_RESTART
            assert await used.closed() == aiohttp.WSCloseCode.SERVICE_RESTART
            await asyncio.to_thread(gate.open)
            heard = await busy.rest(Utterance({"type": "seen"}))
            assert heard.end["status"] == "completed"
            assert await busy.closed() == aiohttp.WSCloseCode.SERVICE_RESTART
        assert await asyncio.to_thread(daemon.process.wait, 30) == 0
        assert daemon.process.stdout is not None
        daemon.process.stdout.close()


async def test_silence_is_not_waited_for_without_end(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[server]\nupload_stall = "400ms"\n') as daemon:
        async with connected(daemon) as socket:
            assert (await socket.error())["code"] == "upload_stalled"
            assert await socket.closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        async with connected(daemon) as socket:
            await socket.start()
            await socket.text("Hello. And then")
            heard = await socket.rest()
            assert (heard.errors[0]["code"], heard.end["status"]) == ("upload_stalled", "failed")
            assert heard.audio_s > 0.3, "what was whole has been spoken"
            await socket.text(" nothing.")  # it was on its way
            await socket.start("Hello.")
            assert (await socket.rest()).end["status"] == "completed"


async def test_who_takes_nothing_is_cut_off(tmp_path: Path, state_dir: Path) -> None:
    with running(tmp_path, state_dir, '[server]\nanswer_stall = "300ms"\n') as daemon:
        async with connected(daemon) as socket:
            await socket.start(LONG_TEXT)
            stages = ("running", "sending")
            await until_async(lambda: sum(cancelled(daemon, "hibari", stage) for stage in stages) == 1)
            await until_async(lambda: held_bytes(daemon) == 0 and leases(daemon, "hibari") == 0)
        assert "its client took nothing of the answer for 0.3 s" in daemon.log.read_text()


async def test_a_key_is_needed_where_keys_are_set(tmp_path: Path, state_dir: Path) -> None:
    (tmp_path / "keys").write_text("app secret-one\n")
    with running(tmp_path, state_dir, f'[server]\napi_keys_file = "{tmp_path / "keys"}"\n') as daemon:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(daemon, Authorization="Bearer wrong"):
                pass
        assert refused.value.status == 401
        async with connected(daemon, Authorization="Bearer secret-one") as socket:
            await socket.start("Hello.")
            assert (await socket.rest()).end["status"] == "completed"
