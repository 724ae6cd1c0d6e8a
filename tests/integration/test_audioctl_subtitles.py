"""audioctl subtitles: files beside the films, all of them or whole ones only, from a real daemon and from a bad one."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from audioctl_peer import Server, audioctl, listing, serving, start
from audioproto.errors import BadRequest
from daemons import AUDIO, Daemon

CUE = re.compile(r"1\n00:00:0\d,\d{3} --> 00:00:\d\d,\d{3}\n\S")


def media(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).write_bytes(b"RIFF")
    return [str(folder / name) for name in names]


# --- a real daemon ------------------------------------------------------------------------------------------------


def test_recordings_get_subtitles_beside_them_and_a_bad_one_does_not_stop_them(daemon: Daemon, tmp_path: Path) -> None:
    shutil.copy(AUDIO / "jfk.wav", tmp_path / "speech.wav")
    shutil.copy(AUDIO / "librispeech-6930-75918-0000.wav", tmp_path / "书.0.wav")
    broken, *_ = media(tmp_path, "broken.mkv")
    ended = daemon.ctl("subtitles", broken, f"{tmp_path}/speech.wav", f"{tmp_path}/书.0.wav", "--language", "en")
    assert ended.returncode == 2
    assert listing(tmp_path) == ["broken.mkv", "speech.srt", "speech.wav", "书.0.srt", "书.0.wav"]
    assert CUE.match((tmp_path / "speech.srt").read_text())
    assert "country" in (tmp_path / "speech.srt").read_text()
    assert "tents" in (tmp_path / "书.0.srt").read_text()
    assert f"audioctl: {broken}: " in ended.stderr
    assert ended.stderr.endswith("audioctl: 2 of 3 written\n")


def test_webvtt_goes_into_another_folder_and_json_says_where(daemon: Daemon, tmp_path: Path) -> None:
    recording = AUDIO / "librispeech-6930-75918-0000.wav"
    ended = daemon.ctl("--json", "subtitles", str(recording), "--format", "vtt", "--output", f"{tmp_path}/new/captions")
    target = tmp_path / "new" / "captions" / f"{recording.stem}.vtt"
    assert msgspec.json.decode(ended.stdout) == {"file": str(recording), "format": "vtt", "output": str(target)}
    assert target.read_text().startswith("WEBVTT\n\n00:00:0")
    assert ended.returncode == 0


# --- what is asked, and what goes wrong ---------------------------------------------------------------------------


@pytest.fixture
async def api() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


class Listener:
    """Answers every upload with its file's name; those of `held` wait until they are let go."""

    def __init__(self, api: Server, *held: str) -> None:
        self.held = {name: asyncio.Event() for name in held}
        self.asked: list[dict[str, str]] = []
        self.under_way = self.most = 0
        self.came: asyncio.Queue[str] = asyncio.Queue()
        api.answers["/v1/audio/transcriptions"] = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        self.asked.append({name: value for name, value in form.items() if isinstance(value, str)})
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.came.put_nowait(upload.filename)
        try:
            if upload.filename in self.held:
                await self.held[upload.filename].wait()
            return web.Response(text=f"of {upload.filename}")
        finally:
            upload.file.close()
            self.under_way -= 1


async def test_only_what_is_given_is_asked_and_the_language_is_in_the_name(api: Server, tmp_path: Path) -> None:
    listener = Listener(api)
    film, *_ = media(tmp_path, "film.mkv")
    assert (await audioctl("subtitles", film, AUDIOD_URL=api.url)).status == 0
    options = ("--translate-to", "zh_TW", "--mode", "fast", "--language", "en", "--model", "whisper-base")
    assert (await audioctl("subtitles", film, *options, AUDIOD_URL=api.url)).status == 0
    assert listener.asked == [
        {"model": "whisper-1", "response_format": "srt"},
        {
            "model": "whisper-base",
            "response_format": "srt",
            "language": "en",
            "translate_to": "zh_TW",
            "subtitle_mode": "fast",
        },
    ]
    assert listing(tmp_path) == ["film.mkv", "film.srt", "film.zh-TW.srt"]


async def test_a_file_that_is_there_is_replaced_only_if_told_so(api: Server, tmp_path: Path) -> None:
    listener = Listener(api)
    film, other = media(tmp_path, "film.mkv", "other.mkv")
    (tmp_path / "film.srt").write_text("mine")
    ended = await audioctl("subtitles", film, other, AUDIOD_URL=api.url)
    assert ended.status == BadRequest.exit_status
    assert f"audioctl: {film}: {tmp_path}/film.srt is there already\n  try: --overwrite\n" in ended.err
    assert (tmp_path / "film.srt").read_text() == "mine"
    assert (tmp_path / "other.srt").read_text() == "of other.mkv"
    assert len(listener.asked) == 1
    assert (await audioctl("subtitles", film, "--overwrite", AUDIOD_URL=api.url)).status == 0
    assert (tmp_path / "film.srt").read_text() == "of film.mkv"


async def test_a_file_that_appears_meanwhile_is_not_replaced_either(api: Server, tmp_path: Path) -> None:
    listener = Listener(api, "film.mkv")
    film, *_ = media(tmp_path, "film.mkv")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(audioctl("subtitles", film, AUDIOD_URL=api.url))
        await listener.came.get()
        (tmp_path / "film.srt").write_text("mine")
        listener.held["film.mkv"].set()
    ended = running.result()
    assert (ended.status, listing(tmp_path)) == (BadRequest.exit_status, ["film.mkv", "film.srt"])
    assert (tmp_path / "film.srt").read_text() == "mine"


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a.mkv", "a.mp4"], [], "would both become"),
        (["a.srt"], ["--overwrite"], "would be replaced by what is made from it"),
        (["a.mkv"], ["--translate-to", "../zh"], "'../zh' is no language code"),
        (["a.mkv"], ["--parallel", "0"], "--parallel must be 1 to 32"),
    ],
)
async def test_what_cannot_end_well_is_refused_before_anything_is_sent(
    api: Server, tmp_path: Path, names: list[str], options: list[str], message: str
) -> None:
    listener = Listener(api)
    ended = await audioctl("subtitles", *media(tmp_path, *names), *options, AUDIOD_URL=api.url)
    assert ended.status == BadRequest.exit_status
    assert message in ended.err
    assert listener.asked == []
    assert listing(tmp_path) == names


async def test_so_many_are_under_way_and_the_first_to_end_is_told_first(api: Server, tmp_path: Path) -> None:
    names = ["a.mkv", "b.mkv", "c.mkv", "d.mkv"]
    listener = Listener(api, "a.mkv")
    process = await start("subtitles", *media(tmp_path, *names), "--parallel", "2", AUDIOD_URL=api.url)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            told = [(await process.stderr.readline()).decode() for _ in range(3)]
            listener.held["a.mkv"].set()
            _, last = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert [line[:5] for line in told] == ["[2/4]", "[3/4]", "[4/4]"]
    assert last.decode().startswith(f"[1/4] {tmp_path}/a.srt (")
    assert listener.most == 2
    assert (process.returncode, len(listing(tmp_path))) == (0, 8)


async def test_ctrl_c_leaves_whole_files_only_and_hangs_up(api: Server, tmp_path: Path) -> None:
    listener = Listener(api, "b.mkv")
    process = await start("subtitles", *media(tmp_path, "a.mkv", "b.mkv"), AUDIOD_URL=api.url)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            assert (await process.stderr.readline()).startswith(b"[1/2] ")
            await listener.came.get()
            await listener.came.get()
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            await api.left.wait()
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, err) == (130, b"")
    assert listing(tmp_path) == ["a.mkv", "a.srt", "b.mkv"]
