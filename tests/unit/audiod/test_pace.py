"""What is said of a download while it goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from audiod.pace import WINDOW_S, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_bytes_rate_and_what_is_left_are_told() -> None:
    clock = Clock()
    pace = Pace(4 * 2**30, clock=clock)
    assert str(pace) == "0 B of 4 GiB (0%), 0 B/s"
    clock.now += 10
    pace.reached(2**30)
    assert str(pace) == "1 GiB of 4 GiB (25%), 102 MiB/s, 30s left"


def test_what_was_there_before_is_not_counted_as_fast() -> None:
    clock = Clock()
    pace = Pace(2000, 1000, clock=clock)
    clock.now += 10
    pace.reached(1100)
    assert pace.rate_bytes_s() == 10


def test_the_rate_is_that_of_late() -> None:
    clock = Clock()
    pace = Pace(0, clock=clock)
    for second in range(1, 61):
        clock.now += 1
        pace.reached(1000 * second if second <= 30 else 30_000)
    assert pace.rate_bytes_s() == 0
    assert str(pace) == "29.3 KiB, 0 B/s"


@given(st.lists(st.tuples(st.floats(0, 2 * WINDOW_S), st.integers(0, 10**12)), max_size=30), st.integers(0, 10**12))
def test_it_can_always_be_said(steps: list[tuple[float, int]], total_bytes: int) -> None:
    clock = Clock()
    pace = Pace(total_bytes, clock=clock)
    for step_s, done_bytes in steps:
        clock.now += step_s
        pace.reached(done_bytes)
        assert pace.rate_bytes_s() >= 0
        assert "/s" in str(pace)
