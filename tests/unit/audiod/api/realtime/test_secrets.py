"""Ephemeral keys: good for what they were made for, for as long as they were made for."""

from __future__ import annotations

import pytest

from audiod.api.realtime.secrets import ClientSecrets
from audiod.api.realtime.sessions import Session
from audioproto.errors import QueueFull

SESSION = Session("sess_1", 0)


class Clock:
    now = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now


def test_a_key_is_good_until_it_expires() -> None:
    clock = Clock()
    secrets = ClientSecrets(clock)
    value, expires_at = secrets.create(SESSION, 60, "web")
    assert value.startswith("ek_")
    assert expires_at == 1_800_000_060
    assert secrets.name_of(value) == "web-ephemeral"
    assert secrets.session_of(value) == SESSION
    clock.now = expires_at - 0.1
    assert secrets.name_of(value)
    clock.now = expires_at
    assert secrets.name_of(value) == ""
    assert secrets.session_of(value) is None


def test_no_other_key_is_good() -> None:
    secrets = ClientSecrets(Clock())
    value, _ = secrets.create(SESSION, 60, "")
    for other in ("", "ek_", value[:-1], value + "x", value.upper()):
        assert secrets.name_of(other) == ""
    assert secrets.name_of(value) == "ephemeral"


def test_no_key_is_kept() -> None:
    secrets = ClientSecrets(Clock())
    value, _ = secrets.create(SESSION, 60, "")
    assert value not in repr(vars(secrets))


def test_they_are_bounded_and_expired_ones_make_room() -> None:
    clock = Clock()
    secrets = ClientSecrets(clock)
    values = {secrets.create(SESSION, 60, "")[0] for _ in range(1000)}
    assert len(values) == 1000
    with pytest.raises(QueueFull) as full:
        secrets.create(SESSION, 60, "")
    assert 59 < (full.value.retry_after_s or 0) <= 60
    clock.now += 60
    assert secrets.create(SESSION, 60, "")[0]
