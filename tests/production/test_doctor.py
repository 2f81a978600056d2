"""`secateur doctor`, as a process with the packages of an image."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from secateur_wire.installation import SERVER, install_command
from tests.production.conftest import ENOUGH_DISK
from tests.production.wheels import SYSTEM_PROGRAMS
from tests.worker.recordings import Recording, h100, lost
from worker.doctor.examination import check_devices
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
    command = install_command(SERVER, "worker", is_here=True)
    assert findings["packages of a worker"]["to_do"].startswith(f"{command}, unless") and "[worker]" in command
    assert "torch is not installed" in findings["packages of a worker"]["detail"]
    assert "127.0.0.1:1" in findings["broker"]["detail"] and "SECATEUR_BROKER_URL" in findings["broker"]["to_do"]


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ({"url": "file:///a%20b/{wheel}", "archive_info": {}}, ["/a b/{wheel}[gguf]"]),
        ({"url": "file:///a%20b/clone", "dir_info": {"editable": True}}, ["--editable", "/a b/clone[gguf]"]),
        (None, ["./{wheel}[gguf]"]),
    ],
)
def test_a_command_names_what_was_installed_from_and_never_our_names_alone(
    origin: dict[str, Any] | None, shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = "secateur_server-2.0-py3-none-any.whl"
    for name in ("secateur", "secateur_server"):
        facts = tmp_path / f"{name}-2.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    for place in ("clone", wheel):
        (tmp_path / "a b" / place).mkdir(parents=True)
    if origin is not None:
        url = json.dumps(origin).replace("{wheel}", wheel).replace("///", f"//{tmp_path}/")
        (facts / "direct_url.json").write_text(url)
    monkeypatch.syspath_prepend(tmp_path)
    command = shlex.split(install_command(SERVER, "gguf", is_here=True))
    expected = [word.replace("{wheel}", wheel).replace("/a b", f"{tmp_path}/a b") for word in shown]
    assert command == ["pip", "install", "./secateur-2.0-py3-none-any.whl", *expected]


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
