"""docs/operations.md says what is: every setting, every metric, every command."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from fastapi.testclient import TestClient

from tests.production.files import ROOT, compose
from tests.production.settings_table import PAGE, settings_table


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert settings_table() in PAGE.read_text(), "run: python -m tests.production.settings_table"


def test_every_metric_that_is_named_is_there(api_client: TestClient) -> None:
    seen = api_client.get("/metrics").text
    exposed = {line.split()[2] for line in seen.splitlines() if line.startswith("# TYPE ")}
    named = set(re.findall(r"secateur_[a-z_]+", PAGE.read_text())) - {"secateur_server"}
    missing = {
        name
        for name in named
        if not any(name in (family, f"{family}_total", f"{family}_bucket", f"{family}_count") for family in exposed)
    }
    assert not missing
    undocumented = {family for family in exposed if family.startswith("secateur_") and not family.endswith("_created")}
    assert undocumented <= named | {f"{name}_total" for name in named} | {n.removesuffix("_total") for n in named}


def test_commands_and_services_that_are_named_exist() -> None:
    page = PAGE.read_text()
    for module in set(re.findall(r"python -m ((?:worker|bench|tests)[\w.]*)", page)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    services = set(compose()["services"])
    for verb, rest in re.findall(r"docker compose (?:--profile \w+ )?(exec|stop|up|run|logs)\b([^\n`|<#]*)", page):
        words = [word for word in rest.split() if not word.startswith("-")]
        named = words[:1] if verb in ("exec", "run") else words
        assert set(named) <= services, rest
    for subcommand in set(re.findall(r"secateur (serve|stop|keys|teams|samples) ?", page)):
        told = subprocess.run(
            [sys.executable, "-c", "from secateur.cli import main; main()", subcommand, "--help"], capture_output=True
        )
        assert told.returncode == 0, subcommand


def test_the_alert_rules_can_be_read() -> None:
    [rules] = re.findall(r"```yaml\n(groups:.*?)```", PAGE.read_text(), re.DOTALL)
    parsed = yaml.safe_load(rules)
    for rule in parsed["groups"][0]["rules"]:
        assert {"alert", "expr", "for", "annotations"} <= rule.keys(), rule


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert target.startswith("https://") or Path(PAGE.parent, target).exists(), target
