"""Locked requirements of the images: all that is asked for, in the versions that the suite runs with, by hash."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.production.files import DOCKERFILE, ROOT

LOCKS = ROOT / "deploy" / "locks"
OWN = {"secateur", "secateur-server"}
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
    return [each for each in found if each.name not in OWN and (each.marker is None or each.marker.evaluate(machine))]


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
