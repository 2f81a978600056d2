"""Checks of the packages that pip installed: whether any is missing, and which are not of the tested version."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from secateur_wire.installation import SERVER, install_command
from worker.doctor.finding import Finding, missing, ok, warning

TESTED: Final = Path(__file__).with_name("constraints.txt")
"""Versions that the tests ran with, in the form that pip's option `--constraint` takes."""
_NAMED: Final = 6
"""Packages that one finding names at most."""


def check_server_packages() -> Finding:
    """Return whether the packages are there that the API, the dispatcher and the commands need."""
    what = "packages of the server"
    if unmet := unmet_requirements():
        return missing(what, _listed(unmet), _command(""))
    return ok(what, f"{SERVER} {version(SERVER)}, secateur {version('secateur')}")


def check_worker_extra() -> Finding:
    """Return whether jobs can be run: PyTorch and all else that a runner loads."""
    what = "packages of a worker"
    if unmet := unmet_requirements("worker"):
        return missing(
            what,
            f"{_listed(unmet)}: jobs are taken and not run",
            f"{_command('worker')}, unless this machine has only the API or the dispatcher",
        )
    return ok(what, f"torch {version('torch')}, transformers {version('transformers')}")


def check_gguf_extra() -> Finding:
    """Return whether GGUF files can be written: llama.cpp checks them."""
    what = "llama.cpp"
    if unmet := unmet_requirements("gguf"):
        return warning(what, f"{_listed(unmet)}: jobs can write no GGUF files", _command("gguf"))
    return ok(what, "checks the GGUF files that jobs write")


def check_openvino_extra() -> Finding:
    """Return whether OpenVINO files can be written: OpenVINO checks them."""
    what = "OpenVINO"
    if unmet := unmet_requirements("openvino"):
        return warning(what, f"{_listed(unmet)}: jobs can write no OpenVINO files", _command("openvino"))
    return ok(what, "checks the OpenVINO files that jobs write")


def check_versions() -> Finding:
    """Return which installed packages have another version than the tests ran with."""
    what = "tested versions"
    lines = [line.partition("==") for line in TESTED.read_text().splitlines() if not line.startswith("#")]
    tested = {canonicalize_name(name): number for name, _, number in lines}
    needed = _needed(SERVER, frozenset({"worker", "gguf", "openvino"}))
    differing = [
        f"{name} {installed} (tested: {tested[name]})"
        for name in sorted(needed & tested.keys())
        if (installed := _installed(name)) not in (None, tested[name])
    ]
    if differing:
        command = _command("worker", "--constraint", str(TESTED))
        return warning(what, _listed(differing), f"where something fails: {command}")
    return ok(what, f"all packages have the version in {TESTED}")


def unmet_requirements(extra: str | None = None) -> list[str]:
    """Return the requirements of the server, or those that an extra adds, that no installed package meets."""
    own = list(_requirements(SERVER, frozenset()))
    needed = own if extra is None else [each for each in _requirements(SERVER, frozenset({extra})) if each not in own]
    unmet = []
    for requirement in needed:
        installed = _installed(requirement.name)
        if installed is None:
            unmet.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(installed, prereleases=True):
            unmet.append(f"{requirement.name} is {installed}, not {requirement.specifier}")
    return unmet


def _command(extra: str, *options: str) -> str:
    return install_command(SERVER, extra, *options, is_here=True)


def _needed(package: str, extras: frozenset[str]) -> set[NormalizedName]:
    """Return the names of all packages that one brings, and those that they bring."""
    names: set[NormalizedName] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(package, extras)]
    while waiting:
        for requirement in _requirements(*waiting.pop()):
            name = canonicalize_name(requirement.name)
            if name not in names:
                names.add(name)
                waiting.append((name, frozenset(requirement.extras)))
    return names


def _requirements(package: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Yield what an installed package asks for on this machine, and for these extras; nothing where there is none."""
    try:
        texts = requires(package) or []
    except PackageNotFoundError:
        return
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in extras | {""}):
            yield requirement


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _listed(texts: list[str]) -> str:
    rest = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
