"""Everything that is started can be ended, with all that it started, and ends with its starter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import eventually, is_alive
from worker.processes import spawn
from worker.runner.client import memory_kills, runner_environment

PARENT = """
import subprocess, sys, time
from worker.processes import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], name="child")
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_process_dies_with_its_starter_even_by_kill_9() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        eventually(lambda: b"sleep(600)" in Path(f"/proc/{child}/cmdline").read_bytes())  # past the exec
        parent.kill()
        eventually(lambda: not is_alive(child))


def test_what_a_process_leaves_in_its_group_is_ended_with_it() -> None:
    leaves = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    child = spawn([sys.executable, "-c", leaves], name="parent of a stray", stdout=subprocess.PIPE)
    stray = int(child.stdout.readline())
    assert child.wait(60) == 0 and is_alive(stray)
    assert child.end() == 0
    eventually(lambda: not is_alive(stray))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as somebody else")
def test_a_process_of_another_user_dies_with_its_starter_too() -> None:
    starter = PARENT.replace('name="child"', 'name="child", user="nobody"').replace("sys.executable", '"/bin/sleep"')
    starter = starter.replace('"-c", "import time; time.sleep(600)"', '"600"')
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        eventually(lambda: Path(f"/proc/{child}/comm").read_text().strip() == "sleep")
        assert Path(f"/proc/{child}").stat().st_uid != 0
        parent.kill()
        eventually(lambda: not is_alive(child))


def test_the_runner_sees_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECATEUR_DATABASE_URL", "SECATEUR_SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "secret")
    environment = runner_environment()
    assert "secret" not in environment.values() and environment["HF_HUB_OFFLINE"] == "1" and "PATH" in environment


def test_kills_for_want_of_memory_are_counted_in_our_group_else_on_the_machine(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    assert memory_kills(proc, groups) == 0
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("pgfault 12\noom_kill 7\n")
    assert memory_kills(proc, groups) == 7
    (proc / "self/cgroup").write_text("1:cpu:/\n0::/service/worker\n")
    assert memory_kills(proc, groups) == 7, "a group without a counter of its own"
    (groups / "service/worker").mkdir(parents=True)
    (groups / "service/worker/memory.events").write_text("max 4\noom 5\noom_kill 3\n")
    assert memory_kills(proc, groups) == 3
