"""`secateur doctor`, as a process with the packages of an image."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from tests.production.conftest import ENOUGH_DISK
from tests.production.wheels import SYSTEM_PROGRAMS
from tests.worker.recordings import Recording, h100, lost
from worker.doctor import packages
from worker.doctor.examination import check_devices, examine
from worker.doctor.finding import Finding

Findings = dict[str, dict[str, Any]]


def doctor(programs: Path, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, with these programs alone and these settings alone."""
    return subprocess.run(
        [programs / "secateur", "doctor", *arguments],
        env={"PATH": f"{programs}:{SYSTEM_PROGRAMS}", **ENOUGH_DISK, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def findings_of(ended: subprocess.CompletedProcess[str]) -> Findings:
    return {each["what"]: each for each in json.loads(ended.stdout)}


def test_a_machine_that_has_all_is_said_to_and_is_left_as_it_is(
    image_programs: dict[str, Path], tmp_path: Path
) -> None:
    ended = doctor(image_programs["worker"], tmp_path, SECATEUR_DEVICE="cpu")
    assert ended.returncode == 0, ended.stdout
    assert "missing" not in ended.stdout and "PostgreSQL) 18" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_each_broken_setting_and_a_missing_extra_are_named_with_what_to_do(
    image_programs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "artifacts").write_text("a file in place of the store's folder")
    broken = {
        "SECATEUR_HOME": "home",
        "SECATEUR_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/none",
        "SECATEUR_BROKER_URL": "redis://:secret@127.0.0.1:1",
        "SECATEUR_DISK_WATERMARK_BYTES": str(10**18),
        "SECATEUR_WORKER_MEMORY_BYTES": str(10**18),
        "SECATEUR_THREADS": "10000",
    }
    ended = doctor(image_programs["api"], tmp_path, "--json", **broken)
    assert ended.returncode == 1 and "secret" not in ended.stdout
    findings = findings_of(ended)
    states = {what: finding["state"] for what, finding in findings.items() if finding["state"] != "ok"}
    assert states == {
        "packages of a worker": "missing",
        "llama.cpp": "warning",
        "OpenVINO": "warning",
        "database": "missing",
        "broker": "missing",
        "store": "missing",
        "disk": "missing",
        "memory": "warning",
        "threads": "warning",
        "GPU": "warning",
    }
    assert all(bool(finding["to_do"]) == (finding["state"] != "ok") for finding in findings.values())
    assert "'secateur-server[worker]'" in findings["packages of a worker"]["to_do"]
    assert "torch is not installed" in findings["packages of a worker"]["detail"]
    assert "127.0.0.1:1" in findings["broker"]["detail"] and "SECATEUR_BROKER_URL" in findings["broker"]["to_do"]


def test_a_setting_that_cannot_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_PORT", "none")
    *_, last = examine()
    assert (last.what, last.state) == ("SECATEUR_PORT", "missing") and "integer" in last.detail


def test_a_package_of_another_version_than_the_tested_one_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tested = tmp_path / "constraints.txt"
    tested.write_text(f"# Tested.\nfastapi==0.1\nhttpx=={version('httpx')}\npytest==0.1\n")
    monkeypatch.setattr(packages, "TESTED", tested)
    found = packages.check_versions()
    assert found.detail == f"fastapi {version('fastapi')} (tested: 0.1)"
    assert found.state == "warning" and found.to_do is not None and str(tested) in found.to_do


def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, number: str, **devices: Any) -> Finding:
    recording = Recording(tmp_path / "nvml.json")
    recording.write(**devices)
    for name, value in recording.environment().items():
        monkeypatch.setenv(name, value)
    return check_devices(Settings(devices=[number]))


def test_a_gpu_that_is_lost_or_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = gpu(monkeypatch, tmp_path, number="0", n0=lost(h100()))
    assert found.state == "missing" and "the device does not answer" in found.detail
    found = gpu(monkeypatch, tmp_path, number="7", n0=h100())
    assert found.state == "missing" and "no device 7" in found.detail
