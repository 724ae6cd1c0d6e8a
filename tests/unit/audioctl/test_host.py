"""What doctor makes of systemd's words, as `systemctl show` prints them."""

from __future__ import annotations

import pytest

from audioctl.host import judge_service

GOOD = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "NRestarts": "0",
    "WatchdogUSec": "30s",
    "UnitFileState": "enabled",
}


@pytest.mark.parametrize(
    ("facts", "answers", "verdict", "said", "fix"),
    [
        (GOOD, True, "ok", "active (running)", ""),
        ({"LoadState": "not-found"}, True, "ok", "another way", ""),
        (
            GOOD | {"ActiveState": "inactive", "SubState": "dead"},
            False,
            "fail",
            "inactive",
            "sudo systemctl start audiod",
        ),
        (GOOD | {"ActiveState": "inactive", "WatchdogUSec": "0"}, True, "ok", "another way", ""),
        (
            GOOD | {"ActiveState": "failed", "Result": "watchdog"},
            False,
            "fail",
            "watchdog",
            "journalctl -u audiod -n 50",
        ),
        (GOOD | {"NRestarts": "4"}, True, "warn", "restarted 4 times", "journalctl -u audiod -n 50"),
        (GOOD | {"ActiveState": "activating"}, False, "warn", "activating", "journalctl -u audiod -n 50"),
        (GOOD | {"LoadState": "masked"}, False, "fail", "masked", "systemctl status audiod.service"),
        (GOOD | {"UnitFileState": "disabled"}, True, "warn", "boot", "sudo systemctl enable audiod"),
        (GOOD | {"WatchdogUSec": "0"}, True, "warn", "no watchdog", "sudo systemctl edit audiod"),
    ],
)
def test_the_state_of_the_service_is_judged(
    facts: dict[str, str], answers: bool, verdict: str, said: str, fix: str
) -> None:
    worst = max(
        judge_service(facts, answers=answers), key=lambda finding: ("ok", "warn", "fail").index(finding.verdict)
    )
    assert worst.verdict == verdict
    assert said in worst.found
    assert worst.fix.startswith(fix)
    assert bool(worst.fix) == (verdict != "ok")
