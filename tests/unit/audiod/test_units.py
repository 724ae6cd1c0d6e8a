"""Sizes and times as operators write them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod import units
from audiod.units import ByteSize, Duration


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("350MiB", 350 * 2**20),
        ("3.5GiB", 3758096384),
        ("500MB", 500_000_000),
        ("500 MB", 500_000_000),
        ("2kB", 2000),
        ("7B", 7),
        ("4096", 4096),
        (4096, 4096),
        (0, 0),
    ],
)
def test_sizes_are_read_in_decimal_and_binary_units(text: str | int, size_bytes: int) -> None:
    assert ByteSize.parse(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "5M", "5g", "1,5GB", "-1", "1e3", "5 parsecs", "٣MB", -1, True, 1.5])
def test_what_could_be_misread_is_no_size(text: str | int) -> None:
    with pytest.raises(ValueError, match="size"):
        ByteSize.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("5min", 300),
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        ("90", 90),
        (0, 0),
        (2.5, 2.5),
        ("never", -1),
        ("-1", -1),
        (-1, -1),
    ],
)
def test_times_are_read_with_units_or_in_seconds(text: str | float, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "5 parsecs", "m", "5m!", "1h-3m", "-5s", -2, float("nan"), float("inf"), True])
def test_what_could_be_misread_is_no_time(text: str | float) -> None:
    with pytest.raises(ValueError, match="time"):
        Duration.parse(text)


@given(st.integers(min_value=0, max_value=2**60), st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_whole_sizes_are_exact_however_large(count: int, unit: str) -> None:
    assert ByteSize.parse(f"{count}{unit}") == count * ByteSize.parse(f"1{unit}")


@given(st.integers(min_value=0, max_value=2**50))
def test_printed_sizes_are_right_to_three_figures(size_bytes: int) -> None:
    assert int(ByteSize.parse(str(ByteSize(size_bytes)))) == pytest.approx(size_bytes, rel=0.006, abs=0.5)


@given(st.integers(min_value=0, max_value=10**12).map(lambda ms: Duration(ms / 1000)))
def test_times_print_as_they_are_read(time_s: Duration) -> None:
    assert Duration.parse(str(time_s)) == pytest.approx(time_s, abs=1e-6)


def test_never_prints_as_it_is_read() -> None:
    assert str(Duration.NEVER) == "never"
    assert Duration.parse("never") is Duration.NEVER


class _Limits(msgspec.Struct):
    cache: ByteSize
    idle: Duration | None = None


def test_both_decode_inside_structs_and_errors_name_the_key() -> None:
    limits = msgspec.convert({"cache": "1MiB", "idle": "5m"}, _Limits, dec_hook=units.decode)
    assert limits.cache == 2**20
    assert limits.idle == Duration(300)
    with pytest.raises(msgspec.ValidationError, match=r"5 minutes.*\$\.idle"):
        msgspec.convert({"cache": 0, "idle": "5 minutes"}, _Limits, dec_hook=units.decode)
