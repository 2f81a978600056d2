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


@pytest.mark.parametrize("target", ["api", "worker"])
def test_images_run_as_a_numbered_user_and_say_whether_they_live(target: str) -> None:
    made = image(target)
    user, _, group = made.user.partition(":")
    assert int(user) > 0 and int(group) > 0
    assert made.healthcheck and made.command


@pytest.mark.parametrize("name", OWN)
def test_own_containers_can_do_little(name: str) -> None:
    own = service(name)
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


def test_only_the_api_is_published() -> None:
    assert [name for name, each in compose()["services"].items() if "ports" in each] == ["api"]


def test_redis_drops_nothing_and_keeps_a_log() -> None:
    command = " ".join(service("redis")["command"])
    assert "--maxmemory-policy noeviction" in command and "--appendonly yes" in command


def test_a_client_that_vanishes_is_let_go_within_half_a_minute() -> None:
    database = " ".join(service("postgres")["command"])
    for setting in (
        "tcp_keepalives_idle=8",
        "tcp_keepalives_interval=4",
        "tcp_keepalives_count=3",
        "tcp_user_timeout=20s",
        "client_connection_check_interval=5s",
    ):
        assert f"-c {setting}" in database
    assert "--tcp-keepalive 10" in " ".join(service("redis")["command"])


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
