"""The files for Prometheus and Grafana name what there is, and Prometheus reads them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import spoolproof.runtime  # noqa: F401 - declares metrics
from spoolproof.alerts.rules import RULES
from spoolproof.cli.app import invoke
from spoolproof.cli.exports import dashboard, rules_file
from spoolproof.parts import FEATURES, entry_of
from spoolproof.telemetry.metrics import METRICS, PREFIX, Kind

METRIC = re.compile(rf"{PREFIX}(\w+?)(?:_bucket)?(?=\W|$)")
SELECTOR = re.compile(rf"{PREFIX}(\w+?)(_bucket)?\{{([^}}]*)\}}")


def rules() -> list[dict[str, object]]:
    document = yaml.safe_load(rules_file(RULES))
    found: list[dict[str, object]] = document["groups"][0]["rules"]
    return found


def charts() -> Iterator[str]:
    for panel in json.loads(dashboard())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_every_rule_of_ours_is_one_of_prometheus() -> None:
    assert [rule.name for rule in RULES] == [one["alert"] for one in rules()][:-1]
    assert "Watchdog" == rules()[-1]["alert"]


@pytest.mark.parametrize("expression", [*(str(one["expr"]) for one in rules()[:-1]), *charts()])
def test_an_expression_names_only_what_is_measured(expression: str) -> None:
    """A chart of a metric that does not exist is empty for ever, and nobody is told."""
    for feature in FEATURES:
        entry_of(feature)
    names = METRIC.findall(expression)
    assert names
    for name in names:
        assert name in METRICS, name
        assert ("_bucket" in expression) is (METRICS[name].kind is Kind.HISTOGRAM)
    for name, _, tests in SELECTOR.findall(expression):
        labels = set(re.findall(r'(\w+)[!=~]+"', tests))
        assert labels - {"job", "instance"} <= set(METRICS[name].labels), labels
    assert expression.count("(") == expression.count(")")


def test_prometheus_takes_both(tmp_path: Path) -> None:
    """Its own checker reads them, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    for name, text in (("rules.yml", rules_file(RULES)), ("charts.yml", as_rules())):
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            [promtool, "check", "rules", name], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert 0 == done.returncode, done.stdout + done.stderr


def as_rules() -> str:
    made = [{"record": f"x:{number}", "expr": expr} for number, expr in enumerate(charts())]
    return str(yaml.safe_dump({"groups": [{"name": "charts", "rules": made}]}))


def test_the_command_writes_with_the_numbers_that_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPOOLPROOF_ALERT_OUTBOX_PENDING_ABOVE", "1000")
    assert 0 == invoke(["export", "prometheus", "--out", str(tmp_path / "rules.yml")])
    assert "(spoolproof_outbox_rows)) > 1000) or" in (tmp_path / "rules.yml").read_text()
    assert 0 == invoke(["export", "grafana"])
    assert "Spoolproof" == json.loads(capsys.readouterr().out.partition("\n")[2])["title"]
    assert 4 == invoke(["export", "grafana", "--out", str(tmp_path / "none" / "x.json")])
