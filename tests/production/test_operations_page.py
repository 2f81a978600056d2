"""The pages of operations say what is: every setting, every metric, every command."""

import json
import re
import subprocess
from pathlib import Path

import yaml
from fastapi.testclient import TestClient

from tests.production.files import ROOT
from tests.production.programs import needed
from tests.production.settings_table import PAGE as SETTINGS
from tests.production.settings_table import settings_table

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("operations", "kubernetes", "settings", "monitoring", "faults")]
DASHBOARD = ROOT / "deploy" / "grafana" / "secateur.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
"""Endings of the names of a metric's samples; those of counters and gauges have its name."""
_PORTAL_ROUTES = ("/portal/models/add/upload", "/portal/uploads")


def text() -> str:
    return "\n".join(page.read_text() for page in PAGES)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert settings_table() in SETTINGS.read_text(), "run: python -m tests.production.settings_table"


def test_every_metric_that_is_named_is_there(api_client: TestClient) -> None:
    seen = api_client.get("/metrics").text
    exposed = {line.split()[2] for line in seen.splitlines() if line.startswith("# TYPE ")}
    named = set(re.findall(r"secateur_[a-z_]+", text())) - {"secateur_server"}
    missing = {
        name
        for name in named
        if not any(name in (family, f"{family}_total", f"{family}_bucket", f"{family}_count") for family in exposed)
    }
    assert not missing
    undocumented = {family for family in exposed if family.startswith("secateur_") and not family.endswith("_created")}
    assert undocumented <= named | {f"{name}_total" for name in named} | {n.removesuffix("_total") for n in named}


def test_alert_rules_name_metrics_and_routes_that_there_are(api_client: TestClient) -> None:
    samples = _samples(api_client)
    for rule in _rules():
        named = set(re.findall(r"secateur_\w+", rule["expr"]))
        assert named and named <= samples, (rule["alert"], named - samples)
    [slow] = [rule["expr"] for rule in _rules() if rule["alert"] == "SecateurSlow"]
    [left_out] = re.findall(r'route!~\s*"([^"]*)"', slow)
    routes = [*api_client.get("/openapi.json").json()["paths"], *_PORTAL_ROUTES]
    for each in _alternatives(left_out):
        assert any(re.fullmatch(each, route) for route in routes), each
    assert not re.fullmatch(left_out, "/v1/jobs")


def test_every_query_of_the_dashboard_is_one_and_names_metrics_that_there_are(
    api_client: TestClient, tmp_path: Path
) -> None:
    board = DASHBOARD.read_text()
    queries = [target["expr"] for panel in json.loads(board)["panels"] for target in panel.get("targets", [])]
    asked = [each.replace("$queue", ".*").replace("$__rate_interval", "30s") for each in queries]
    assert asked and set(re.findall(r"secateur_\w+", board)) <= _samples(api_client)
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    tried = subprocess.run([needed("promtool"), "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True)
    assert tried.returncode == 0, tried.stderr


def test_the_alert_rules_hold_what_their_tests_say() -> None:
    program = needed("promtool")
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        tried = subprocess.run([program, *command], cwd=ALERTS.parent, capture_output=True, text=True)
        assert tried.returncode == 0, tried.stdout + tried.stderr


def _samples(api_client: TestClient) -> set[str]:
    types = re.findall(r"^# TYPE (\S+) (\w+)$", api_client.get("/metrics").text, re.MULTILINE)
    return {name + suffix for name, kind in types for suffix in _SUFFIXES.get(kind, ("",))}


def _rules() -> list[dict[str, str]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    rules: list[dict[str, str]] = group["rules"]
    return rules


def _alternatives(pattern: str) -> list[str]:
    """The parts of a pattern between the bars that stand in no brackets."""
    return re.findall(r"(?:\([^)]*\)|[^|()])+", pattern)
