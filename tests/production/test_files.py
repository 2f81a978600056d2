"""The production files are what they should be: linted, valid, and safe by their own words."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from tests.production.files import COMPOSE, DOCKERFILE, compose, filled_in, image

BIN = Path(sys.executable).parent
OWN = ("prepare", "api", "dispatcher", "worker-0", "worker-cpu")
"""Services that run this repository's images."""


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def test_the_dockerfile_passes_its_linter() -> None:
    linted = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True)
    assert linted.returncode == 0 and not linted.stdout, linted.stdout


def test_the_compose_file_is_valid_by_the_compose_specification_s_own_schema() -> None:
    checked = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", OWN)
def test_own_containers_can_do_little(name: str) -> None:
    own = service(name)
    assert all(int(part) > 0 for part in image(own["build"]["target"]).user.split(":"))
    assert own["read_only"] is True and own["cap_drop"] == ["ALL"] and own["init"] is True
    assert own["security_opt"] == ["no-new-privileges:true"]
    assert any(each.startswith("/tmp") for each in own["tmpfs"])
    assert "privileged" not in own and "user" not in own


@pytest.mark.parametrize("name", [name for name in compose()["services"] if name != "prepare"])
def test_every_service_is_watched_restarted_and_bounded(name: str) -> None:
    each = service(name)
    built = each.get("build")
    watched = each.get("healthcheck", {}).get("test") or (built and image(built["target"]).healthcheck)
    assert watched, "no health check"
    if name in OWN:
        assert "--end" in watched, "nothing restarts what is merely unhealthy"
    assert each["restart"] == "unless-stopped" and each["deploy"]["resources"]["limits"]["memory"]


def test_only_the_api_is_published_and_redis_drops_nothing() -> None:
    command = " ".join(service("redis")["command"])
    assert "--maxmemory-policy noeviction" in command and "--appendonly yes" in command
    assert [name for name, each in compose()["services"].items() if "ports" in each] == ["api"]


def test_passwords_need_no_escaping() -> None:
    for name in OWN:
        environment = service(name)["environment"]
        assert "PASSWORD" not in environment["SECATEUR_DATABASE_URL"]
        assert environment["PGPASSWORD"] == "${POSTGRES_PASSWORD:?}"
        assert "PASSWORD" not in environment["SECATEUR_BROKER_URL"]
        assert environment["SECATEUR_BROKER_PASSWORD"] == "${REDIS_PASSWORD:?}"


def test_every_setting_named_exists() -> None:
    known = {f"SECATEUR_{name.upper()}" for name in Settings.model_fields}
    for name in OWN:
        named = {each for each in service(name)["environment"] if each.startswith("SECATEUR_")}
        assert named <= known, named - known
    for target in ("api", "worker"):
        named = {each for each in image(target).environment if each.startswith("SECATEUR_")}
        assert named <= known, named - known


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text()
    for secret in (
        "POSTGRES_PASSWORD",
        "REDIS_PASSWORD",
        "STORE_ACCESS_KEY",
        "STORE_SECRET_KEY",
        "SECATEUR_SECRET_KEY",
    ):
        assert f"${{{secret}:?}}" in text and f"${{{secret}:-" not in text
    with pytest.raises(KeyError):
        filled_in("${POSTGRES_PASSWORD:?}", {})
