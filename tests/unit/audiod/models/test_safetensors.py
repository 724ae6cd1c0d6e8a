"""Which safetensors files are taken for whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.models import safetensors
from audioproto.errors import InstallFailed


def written(directory: Path, header: object, data: bytes, length: int | None = None) -> Path:
    text = json.dumps(header).encode()
    file = directory / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return file


def tensor(begin: int, end: int, dtype: str = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": [(end - begin) // 2], "data_offsets": [begin, end]}


def test_a_whole_file_is_told_by_its_tensors(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": tensor(4, 10), "a": tensor(0, 4)}
    assert safetensors.check(written(tmp_path, header, bytes(10))) == 2
    assert safetensors.check(written(tmp_path, {}, b"")) == 0


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": tensor(0, 4), "b": tensor(4, 10)}, 9),  # cut
        ({"a": tensor(0, 4)}, 10),  # something behind it
        ({"a": tensor(0, 4), "b": tensor(6, 10)}, 10),  # a hole
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, 4),  # too few bytes for its shape
        ({"a": {"dtype": "F32"}}, 4),
        (["a"], 0),
        ("text", 0),
    ],
)
def test_one_that_contradicts_itself_is_refused(tmp_path: Path, header: object, size: int) -> None:
    with pytest.raises(InstallFailed, match=r"model\.safetensors is no whole safetensors file"):
        safetensors.check(written(tmp_path, header, bytes(size)))


def test_a_header_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1_000_000) + b"[" * 1_000_000)
    with pytest.raises(InstallFailed, match=r"model\.safetensors is no whole"):
        safetensors.check(file)


def test_a_header_longer_than_the_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="a header of"):
        safetensors.check(written(tmp_path, {}, b"", length=2**62))


@given(st.binary(max_size=300))
def test_whatever_a_file_holds_it_is_refused_with_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    file.write_bytes(data)
    try:
        safetensors.check(file)
    except InstallFailed:
        return
    assert len(data) >= 10
