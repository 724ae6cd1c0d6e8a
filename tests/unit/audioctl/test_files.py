"""Result files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from audioctl import files
from audioproto.errors import AudiodError, BadRequest, DaemonUnreachable


def broken() -> Iterator[bytes]:
    yield b"half"
    raise DaemonUnreachable("broke off")


def test_a_file_appears_with_all_of_its_bytes(tmp_path: Path) -> None:
    assert files.write(tmp_path / "sound.wav", [b"RIFF", b"data"]) == 8
    assert (tmp_path / "sound.wav").read_bytes() == b"RIFFdata"
    assert list(tmp_path.iterdir()) == [tmp_path / "sound.wav"]


def test_a_file_has_the_permissions_that_the_user_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "sound.wav", [b"x"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "sound.wav").stat().st_mode) == 0o640


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "sound.wav"
    target.write_bytes(b"old")
    with pytest.raises(DaemonUnreachable):
        files.write(target, broken())
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "sound.wav"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.wav")
    files.write(tmp_path / "link", [b"new"])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.wav").read_bytes() == b"new"


def test_a_fifo_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    files.write(fifo, [b"through"])
    reader.join()
    assert read == [b"through"]
    assert fifo.is_fifo()


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(AudiodError, match=r"cannot write .*nowhere/sound.wav: No such file"):
        files.write(tmp_path / "nowhere" / "sound.wav", [b"x"])


def test_a_file_that_must_not_be_replaced_is_not_and_leaves_no_other(tmp_path: Path) -> None:
    target = tmp_path / "film.srt"
    assert files.write(target, [b"first"], replace=False) == 5
    with pytest.raises(BadRequest, match="is there already"):
        files.write(target, [b"second"], replace=False)
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_takes_no_files_is_known_before_the_work(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # that of pytest lets nobody else in
        Path(folder).chmod(0o555)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(AudiodError, match=r"cannot write .*srt: Permission denied"):
                files.check_target(Path(folder) / "film.srt", tmp_path / "film.mkv", replace=False)
        finally:
            os.seteuid(before)


def test_files_are_named_after_their_sources(tmp_path: Path) -> None:
    sources = [Path("films/a.b.mkv"), Path("c")]
    assert files.targets(sources, None, "zh.srt") == [Path("films/a.b.zh.srt"), Path("c.zh.srt")]
    folder = tmp_path / "new"
    assert files.targets(sources, str(folder), "srt") == [folder / "a.b.srt", folder / "c.srt"]
    assert folder.is_dir()
    with pytest.raises(BadRequest, match="and c would both become"):
        files.targets([Path("films/c.mp4"), Path("c")], str(folder), "srt")
