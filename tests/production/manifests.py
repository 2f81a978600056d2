"""What the manifests in deploy/kubernetes say once kustomize has put them together."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.production.files import ROOT, Image, image
from tests.production.programs import needed

FOLDER = ROOT / "deploy" / "kubernetes"
BASE, EXAMPLE = "base", "overlays/example"

Manifest = dict[str, Any]


@cache
def rendered(folder: str) -> list[Manifest]:
    """Return the resources of a kustomization."""
    built = subprocess.run([needed("kustomize"), "build", FOLDER / folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def of_kind(folder: str, kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in rendered(folder) if each["kind"] == kind}


@dataclass(frozen=True)
class Container:
    """One container of a pod that this repository's images run in."""

    part: str
    said: Manifest
    pod: Manifest

    @property
    def image(self) -> Image:
        return image(self.said["image"].rpartition("/")[2].partition(":")[0].removeprefix("secateur-"))

    @property
    def command(self) -> list[str]:
        return list(self.said.get("command") or self.image.command)

    def environment(self, settings: dict[str, str], secrets: dict[str, str]) -> dict[str, str]:
        """Return what its process sees, with these as the ConfigMap and the Secret."""
        seen = dict(self.image.environment)
        if self.said.get("envFrom"):
            seen |= settings
        for each in self.said.get("env", []):
            if "value" in each:
                seen[each["name"]] = each["value"]
            elif (key := each["valueFrom"]["secretKeyRef"]["key"]) in secrets:
                seen[each["name"]] = secrets[key]
        return seen


def pods(folder: str) -> Iterator[tuple[str, Manifest]]:
    """Yield the name and the pod of everything that runs some."""
    for each in rendered(folder):
        if each["kind"] in ("Deployment", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]


def containers(folder: str, *, init: bool = False) -> dict[str, Container]:
    """Return the containers of our images, or those that run before them, by what they are of."""
    found = {}
    for name, pod in pods(folder):
        for each in pod["spec"].get("initContainers" if init else "containers", []):
            if "secateur-" in each["image"]:
                found[name] = Container(name, each, pod)
    return found


def settings(folder: str) -> dict[str, str]:
    """Return what the ConfigMap says."""
    [said] = of_kind(folder, "ConfigMap").values()
    data: dict[str, str] = said["data"]
    return data
