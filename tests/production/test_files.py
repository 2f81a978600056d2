"""The production files are what they should be: linted, valid and safe by their own words, all requirements locked."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from core.settings import Settings
from tests.production.files import COMPOSE, DOCKERFILE, ROOT, compose, filled_in, image

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


LOCKS = ROOT / "deploy" / "locks"
OURS = {"secateur", "secateur-server"}
"""Packages of this repository, which are installed from it."""


def locked(file: Path) -> dict[str, str]:
    """Return versions by name; fails where one is no exact version or has no hash."""
    versions: dict[str, str] = {}
    for entry in _entries(file):
        [requirement, *hashes] = entry.split(" --hash=")
        name, _, version = requirement.partition("==")
        assert version and all(each.strip().startswith("sha256:") for each in hashes), entry
        assert hashes, f"{name} has no hash"
        versions[canonicalize_name(name)] = version.partition(" ")[0]
    return versions


def _entries(file: Path) -> Iterator[str]:
    joined = file.read_text().replace("\\\n", " ")
    return (" ".join(line.split()) for line in joined.splitlines() if line.strip() and not line.startswith("#"))


def asked(extra: str | None = None) -> list[Requirement]:
    """Return what pyproject.toml and the client's ask for on the images' machine."""
    server, client = (
        tomllib.loads((ROOT / each / "pyproject.toml").read_text())["project"] for each in (".", "client")
    )
    wanted = [*server["dependencies"], *client["dependencies"]]
    wanted += server["optional-dependencies"][extra] if extra else []
    found = [Requirement(each) for each in wanted]
    machine = {"python_version": "3.12", "sys_platform": "linux", "platform_system": "Linux", "extra": ""}
    return [each for each in found if each.name not in OURS and (each.marker is None or each.marker.evaluate(machine))]


@pytest.mark.parametrize(
    ("image", "extra"), [("api", None), ("worker", "worker"), ("worker", "gguf"), ("worker", "openvino")]
)
def test_an_image_s_lock_holds_all_that_is_asked_for_in_versions_that_satisfy_it(image: str, extra: str | None) -> None:
    versions = locked(LOCKS / f"{image}.txt")
    for requirement in asked(extra):
        version = versions.get(canonicalize_name(requirement.name))
        assert version and version in requirement.specifier, f"{requirement}: {version} is locked; run make lock"


@pytest.mark.parametrize("image", ["api", "worker"])
def test_images_have_the_versions_that_the_suite_runs_with(image: str) -> None:
    lines = (ROOT / "worker" / "doctor" / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    versions = locked(LOCKS / f"{image}.txt")
    shared = versions.keys() & tested.keys()
    assert len(shared) > 50
    assert {name: versions[name] for name in shared} == {name: tested[name] for name in shared}


def test_the_api_s_image_has_no_torch_and_the_worker_s_has_cuda_pinned() -> None:
    api, worker = (locked(LOCKS / f"{image}.txt") for image in ("api", "worker"))
    assert not {name for name in api if name.startswith(("torch", "nvidia-", "transformers", "triton"))}
    assert "torch" in worker and any(name.startswith("nvidia-cuda-runtime") for name in worker)


def test_the_dockerfile_installs_nothing_that_is_not_locked() -> None:
    installs = [
        line for line in DOCKERFILE.read_text().replace("\\\n", " ").splitlines() if "pip" in line and "install" in line
    ]
    installs = [line for line in installs if "uninstall" not in line]
    assert installs
    for line in installs:
        assert "--require-hashes" in line or "--no-index --" in line or "--no-deps --no-index" in line, line
