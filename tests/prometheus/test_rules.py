"""The shipped configuration and rules: they are valid, every alert is tested both ways, and they say what they mean."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from audiod.metrics import METRICS
from audioproto.errors import all_errors
from daemons import TOP
from scraping import SHIPPED

RULES = SHIPPED / "audiod.rules.yml"
CASES = SHIPPED / "audiod.rules.test.yml"

Promtool = Callable[..., subprocess.CompletedProcess[str]]


def alerts() -> dict[str, str]:
    """Each alert's name and text."""
    parts = re.split(r"^      - (?=alert: |record: )", RULES.read_text(), flags=re.MULTILINE)
    return {part.split()[1]: part for part in parts if part.startswith("alert: ")}


@pytest.mark.prometheus
def test_configuration_and_rules_are_valid(promtool: Promtool) -> None:
    for arguments in (("check", "config", str(SHIPPED / "prometheus.yml")), ("check", "rules", str(RULES))):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stderr
        assert "SUCCESS" in checked.stdout


@pytest.mark.prometheus
def test_every_alert_fires_when_it_should_and_only_then(promtool: Promtool) -> None:
    tested = promtool("test", "rules", str(CASES))
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.prometheus
def test_the_cases_notice_a_threshold_that_has_moved(promtool: Promtool, tmp_path: Path) -> None:
    shutil.copy(CASES, tmp_path)
    text = RULES.read_text()
    (tmp_path / RULES.name).write_text(
        text.replace("audiod_resident_bytes:ratio > 0.9", "audiod_resident_bytes:ratio > 0.4")
    )
    assert promtool("test", "rules", str(tmp_path / CASES.name)).returncode != 0


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    cases = re.split(r"- alertname: ", CASES.read_text())
    mine = [case for case in cases if case.split()[0] == name]
    assert any("exp_alerts: []" in case.split("- name:")[0] for case in mine)
    assert any("exp_labels" in case for case in mine)


@pytest.mark.parametrize("name", alerts())
def test_every_alert_says_what_it_is_and_what_to_type_next(name: str) -> None:
    text = alerts()[name]
    for needed in ("severity: ", "summary: ", "description: ", "runbook: "):
        assert needed in text
    command = re.findall(r"^          runbook: (.*)$", text, re.MULTILINE)[0]
    known = {"audioctl", "journalctl", "systemctl"}
    assert shlex.split(command)[0] in known
    if command.startswith("audioctl"):
        verb = shlex.split(command)[1].rstrip(";")
        assert (TOP / "ctl" / "audioctl" / "commands" / f"{verb}.py").exists()


def test_the_runbook_says_what_to_do_on_every_alert() -> None:
    runbook = (TOP / "packaging" / "RUNBOOK.md").read_text()
    assert re.findall(r"^\| (Audiod\w+) \|", runbook, re.MULTILINE) == list(alerts())


def test_the_error_ratio_counts_what_is_not_the_callers_fault() -> None:
    (counted,) = re.findall(r'audiod_request_errors_total\{code=~"([^"]+)"\}', RULES.read_text())
    ours = {code for code, error in all_errors().items() if error.http_status >= 500}
    orders = {"draining", "model_unloaded"}
    elsewhere = {"daemon_unreachable", "install_failed", "interrupted"}  # never on the HTTP API
    assert set(counted.split("|")) == ours - orders - elsewhere


def test_rules_use_metrics_that_there_are() -> None:
    known = {metric.name for metric in METRICS}
    used = set(re.findall(r"(?<![:\w])(audiod_\w+)", re.sub(r"record: .*", "", RULES.read_text())))
    assert used
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= known
