"""audioctl say and transcribe against an HTTP API: what they send, what they write, and what an error leaves behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from audioctl_peer import Server, audioctl, environment, listing, serving
from audioproto.control import Status
from audioproto.errors import DaemonUnreachable, PermissionDenied, QueueFull, Unavailable, UploadTooLarge, VoiceNotFound
from terminals import terminal


@pytest.fixture
async def api() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


# --- say ----------------------------------------------------------------------------------------------------------


async def test_say_writes_what_the_api_answers_where_the_daemon_says_it_is(api: Server, tmp_path: Path) -> None:
    api.says("/v1/audio/speech", b"OggS...")
    target = tmp_path / "morning.ogg"
    async with serving(socket=str(tmp_path / "control.sock")) as control:
        control.says("/v1/status", Status("0.1.0", 1, 812, 60, [api.url], "", False, 0, [], []))
        ended = await audioctl(
            *("say", "早上好", "-o", str(target), "--voice", "nova", "--speed", "1.2"),
            AUDIOD_SOCKET=control.socket,
            AUDIOD_API_KEY="secret",
        )
    assert (ended.status, ended.out) == (0, "")
    assert target.read_bytes() == b"OggS..."
    assert msgspec.json.decode(api.bodies[0][1]) == {
        "model": "tts-1",
        "voice": "nova",
        "input": "早上好",
        "response_format": "opus",
        "speed": 1.2,
    }
    assert api.headers[0]["Authorization"] == "Bearer secret"


async def test_say_reads_standard_input_and_writes_standard_output(api: Server) -> None:
    api.says("/v1/audio/speech", b"RIFF")
    for argv in (("say", "-o", "-"), ("say", "-", "-o", "-")):
        ended = await audioctl(*argv, "--url", f"{api.url}/v1/", stdin="\ufeffGood morning\n".encode())
        assert (ended.status, ended.out, ended.err) == (0, "RIFF", "")
    assert [msgspec.json.decode(body)["input"] for _, body in api.bodies] == ["Good morning\n"] * 2
    assert msgspec.json.decode(api.bodies[0][1])["response_format"] == "wav"
    assert "Authorization" not in api.headers[0]


async def test_text_in_another_encoding_is_refused_with_the_way_out(api: Server) -> None:
    ended = await audioctl("say", "-o", "-", AUDIOD_URL=api.url, stdin="早上好".encode("gb18030"))
    assert ended.status == 2
    assert "iconv -f GB18030 -t UTF-8" in ended.err


async def test_an_api_error_keeps_the_old_file_and_its_meaning(api: Server, tmp_path: Path) -> None:
    error = {
        "message": "no voice named bob",
        "type": "invalid_request_error",
        "param": "voice",
        "code": "voice_not_found",
    }
    api.says("/v1/audio/speech", {"error": error}, status=400)
    target = tmp_path / "x.mp3"
    target.write_bytes(b"old")
    ended = await audioctl("--json", "say", "hello", "-o", str(target), AUDIOD_URL=api.url)
    assert ended.status == VoiceNotFound.exit_status
    assert msgspec.json.decode(ended.err)["error"] == {
        "code": "voice_not_found",
        "message": "no voice named bob",
        "param": "voice",
    }
    assert listing(tmp_path) == ["x.mp3"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("chunked", [True, False])
async def test_sound_that_breaks_off_is_not_taken_for_the_whole(api: Server, tmp_path: Path, chunked: bool) -> None:
    async def speech(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = 1000
        await response.prepare(request)
        await response.write(b"ID3")
        assert request.transport is not None
        request.transport.close()
        return response

    api.answers["/v1/audio/speech"] = speech
    ended = await audioctl("say", "hello", "-o", str(tmp_path / "x.mp3"), AUDIOD_URL=api.url)
    assert ended.status == DaemonUnreachable.exit_status
    assert f"{api.url} broke off" in ended.err
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "http_status", "exit_status"),
    [("queue_full", 503, QueueFull.exit_status), ("rate_limit_exceeded", 429, Unavailable.exit_status)],
)
async def test_a_busy_api_says_when_to_come_back(api: Server, code: str, http_status: int, exit_status: int) -> None:
    async def speech(request: web.Request) -> web.StreamResponse:
        error = {"error": {"message": "busy", "type": "server_error", "param": None, "code": code}}
        return web.json_response(error, status=http_status, headers={"Retry-After": "75"})

    api.answers["/v1/audio/speech"] = speech
    ended = await audioctl("say", "hello", "-o", "-", AUDIOD_URL=api.url)
    assert (ended.status, ended.err) == (exit_status, "audioctl: busy\n  try again in 1m15s\n")


async def test_an_answer_that_is_no_envelope_is_shown_as_it_is(api: Server) -> None:
    api.says("/v1/audio/speech", b"<h1>Bad\n Gateway</h1>", status=502)
    ended = await audioctl("say", "hello", "-o", "-", AUDIOD_URL=api.url)
    assert (ended.status, ended.err) == (1, "audioctl: HTTP status 502 Bad Gateway: <h1>Bad Gateway</h1>\n")


async def test_a_url_may_be_any_server_s_and_is_asked_for_no_progress(api: Server, tmp_path: Path) -> None:
    api.says("/v1/audio/speech", b"ID3")
    command = [sys.executable, "-m", "audioctl", "say", "hello", "-o", str(tmp_path / "x.mp3"), "--url", api.url]
    with terminal(command, environment()) as screen:
        assert await asyncio.to_thread(screen.wait_for_end) == 0
    assert (tmp_path / "x.mp3").read_bytes() == b"ID3"
    asked = msgspec.json.decode(api.bodies[0][1])
    assert asked.keys() == {"model", "voice", "input", "response_format"}


async def test_an_api_that_wants_a_key_says_how_to_give_one(api: Server) -> None:
    error = {"message": "no API key", "type": "authentication_error", "param": None, "code": "invalid_api_key"}
    api.says("/v1/audio/speech", {"error": error}, status=401)
    ended = await audioctl("say", "hello", "-o", "-", AUDIOD_URL=api.url)
    assert ended.status == PermissionDenied.exit_status
    assert ended.err == "audioctl: no API key\n  try: export AUDIOD_API_KEY=KEY\n"


async def test_a_daemon_without_http_is_named_as_the_reason(tmp_path: Path) -> None:
    async with serving(socket=str(tmp_path / "control.sock")) as control:
        control.says("/v1/status", Status("0.1.0", 1, 812, 60, [], "", False, 0, [], []))
        ended = await audioctl("say", "hello", "-o", "-", AUDIOD_SOCKET=control.socket)
    assert ended.status == DaemonUnreachable.exit_status
    assert "this daemon serves no HTTP" in ended.err


# --- transcribe ---------------------------------------------------------------------------------------------------


def recognises(api: Server, failing: str = "") -> list[dict[str, str]]:
    """Answers each upload with its name and size; a file called `failing` gets an error. Returns the fields it saw."""
    seen: list[dict[str, str]] = []

    async def transcribe(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        data = upload.file.read()
        seen.append({**{key: value for key, value in form.items() if isinstance(value, str)}, "file": upload.filename})
        if upload.filename == failing:
            error = {
                "message": "no sound in it",
                "type": "invalid_request_error",
                "param": "file",
                "code": "invalid_audio",
            }
            return web.json_response({"error": error}, status=400)
        if "json" in str(form["response_format"]):
            return web.json_response({"text": f"{upload.filename} {len(data)}"})
        return web.Response(text=f"{upload.filename} {len(data)} {data[:4].hex()}\n")

    api.answers["/v1/audio/transcriptions"] = transcribe
    return seen


async def test_transcribe_sends_the_file_as_a_form_and_prints_the_text(api: Server, tmp_path: Path) -> None:
    seen = recognises(api)
    recording = tmp_path / '讲话 "1".wav'
    recording.write_bytes(b"RIFF\r\n--\r\n" + bytes(300_000))
    ended = await audioctl("transcribe", str(recording), "--language", "zh", AUDIOD_URL=api.url, AUDIOD_API_KEY="k")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith(" 300010 52494646\n")
    assert seen == [{"model": "whisper-1", "response_format": "text", "language": "zh", "file": "讲话 %221%22.wav"}]
    assert api.headers[0]["Authorization"] == "Bearer k"


async def test_many_files_go_to_a_folder_and_a_bad_one_does_not_stop_them(api: Server, tmp_path: Path) -> None:
    recognises(api, failing="b.wav")
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    folder = tmp_path / "new" / "subtitles"
    files = [str(tmp_path / name) for name in ("a.wav", "b.wav", "none.wav", "c.wav")]
    ended = await audioctl("transcribe", *files, "--format", "srt", "--output-dir", str(folder), AUDIOD_URL=api.url)
    assert ended.status == 2
    assert listing(folder) == ["a.srt", "c.srt"]
    assert (folder / "c.srt").read_text() == "c.wav 4 52494646\n"
    progress = ended.err.splitlines()
    assert progress[0].startswith(f"[1/4] {files[0]} (")
    assert progress[1] == f"audioctl: {files[1]}: no sound in it"
    assert progress[2] == f"audioctl: cannot read {files[2]}: No such file or directory"
    assert progress[3].startswith(f"[4/4] {files[3]} (")


async def test_many_files_on_standard_output_are_told_apart(api: Server, tmp_path: Path) -> None:
    recognises(api)
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    ended = await audioctl("transcribe", f"{tmp_path}/a.wav", f"{tmp_path}/b.wav", AUDIOD_URL=api.url)
    assert ended.out == f"==> {tmp_path}/a.wav <==\na.wav 4 52494646\n==> {tmp_path}/b.wav <==\nb.wav 4 52494646\n"


@pytest.mark.parametrize(
    ("answer_format", "result"), [("text", "a.wav 4 52494646\n"), ("verbose_json", {"text": "a.wav 4"})]
)
async def test_json_is_a_line_for_each_file(api: Server, tmp_path: Path, answer_format: str, result: object) -> None:
    recognises(api)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    ended = await audioctl("--json", "transcribe", f"{tmp_path}/a.wav", "--format", answer_format, AUDIOD_URL=api.url)
    assert msgspec.json.decode(ended.out) == {"file": f"{tmp_path}/a.wav", "format": answer_format, "result": result}


@pytest.mark.parametrize("polite", [True, False])
async def test_an_upload_refused_half_way_still_shows_why(tmp_path: Path, polite: bool) -> None:
    """The server answers after the head. A polite one reads on to the end; the other closes and resets the rest."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"message":"over 25 MB","type":"x","param":"file","code":"upload_too_large"}}'
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        if polite:
            writer.write_eof()
            await reader.read()
        writer.close()

    recording = tmp_path / "long.wav"
    with recording.open("wb") as file:
        file.truncate(30_000_000)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ended = await audioctl("transcribe", str(recording), AUDIOD_URL=url)
    assert (ended.status, ended.err) == (UploadTooLarge.exit_status, f"audioctl: {recording}: over 25 MB\n")


async def test_what_is_no_regular_file_is_refused(api: Server, tmp_path: Path) -> None:
    for path, message in ((tmp_path, "Is a directory"), (Path("/dev/null"), "is no regular file")):
        ended = await audioctl("transcribe", str(path), AUDIOD_URL=api.url)
        assert ended.status == 2
        assert message in ended.err
