"""Everything that is started can be ended, with all that it started, and ends with its starter. Runners that are forked
are runners as if each had been started: alone, without credentials.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.pipeline.messages import Spec
from core.pipeline.stages.export.spec import ExportSpec
from secateur_wire.errors import RunnerLost
from tests.model_folders import write_llama
from tests.worker.conftest import eventually, is_alive, runner_of
from worker.processes import spawn
from worker.runner.client import RUNNER, memory_kills, run_task, runner_environment
from worker.runner.fork_server import ForkedProcess, fork_runner
from worker.runner.messages import AliveMessage, Message

OWNER = """
import sys, time
from worker.runner import fork_server
from worker.runner.fork_server import fork_runner
from worker.runner.client import runner_environment
fork_server.PRELOADED = ()  # for nothing here is a task
runner = fork_runner(name="runner", stderr=sys.stderr, environment=runner_environment(), variables={})
print(runner.pid, flush=True)
time.sleep(600)
"""
Fork = Callable[..., ForkedProcess]


@pytest.fixture
def fork(tmp_path: Path) -> Iterator[Fork]:
    """Runners of the server this process has, that wait for their spec."""
    with open(tmp_path / "log", "ab") as log:

        def start(*libraries: str, **variables: str) -> ForkedProcess:
            environment = runner_environment()
            forked = fork_runner(
                name="runner", stderr=log, environment=environment, variables=variables, libraries=libraries
            )
            assert forked is not None
            return forked

        yield start


def task(
    spec: Spec, log: Path, on_wait: Callable[[], None] = lambda: None, on_message: Callable[[Message], None] = print
) -> dict[str, Any]:
    return run_task(spec, log=log, on_message=on_message, on_wait=on_wait, grace_seconds=0.5)


def test_it_leads_a_group_and_has_its_variables_and_no_credentials(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_DATABASE_URL", "a secret")
    forked = fork(TRACEPARENT="00-1-2-03")
    assert os.getpgid(forked.pid) == forked.pid != os.getpgid(0)
    server = psutil.Process(forked.pid).ppid()
    for process in (server, forked.pid):
        assert b"secret" not in Path(f"/proc/{process}/environ").read_bytes()
    eventually(lambda: psutil.Process(forked.pid).name() == "secateur-runner")
    opened = [str(file.readlink()) for file in Path(f"/proc/{forked.pid}/fd").iterdir()]
    assert not [each for each in opened if "socket" in each or "pidfd" in each], "those are the server's"
    forked.end()


def test_it_dies_with_its_owner_even_by_kill_9() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        forked = int(owner.stdout.readline())
        server = psutil.Process(forked).ppid()
        owner.kill()
        eventually(lambda: not is_alive(forked) and not is_alive(server))


def test_a_runner_whose_server_is_killed_is_lost_and_the_next_has_another(fork: Fork, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "model")
    log = tmp_path / "runner.log"

    fork().end()

    def kill_server() -> None:
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it is killed already
                if "worker.runner.forking_process" in process.cmdline():
                    process.kill()

    with pytest.raises(RunnerLost, match="SIGKILL"):
        task(ExportSpec(artifact=folder, form="packed"), log, kill_server)
    assert runner_of(os.getpid()) is None
    assert "dense_bytes" in task(ExportSpec(artifact=folder, form="packed"), log)["exported"]


def test_where_libraries_do_not_load_runners_are_executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("worker.runner.fork_server.COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    monkeypatch.setattr("worker.runner.fork_server._servers", {})
    seen: list[bool] = []

    def look() -> None:
        if found := runner_of(os.getpid()):
            seen.append(psutil.Process(found).cmdline() == [*RUNNER])

    heard: list[Message] = []
    asked = ExportSpec(artifact=write_llama(tmp_path / "model"), form="packed")
    packed = task(asked, tmp_path / "log", look, heard.append)
    assert any(seen) and "dense_bytes" in packed["exported"]
    assert any(isinstance(message, AliveMessage) for message in heard), "the runner says that it lives"


PARENT = """
import time
from worker.processes import spawn
child = spawn(["/bin/sleep", "600"], name="child", user={user!r})
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("user", [None, "nobody"] if os.geteuid() == 0 else [None])
def test_a_process_dies_with_its_starter_even_by_kill_9(user: str | None) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT.format(user=user)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        eventually(lambda: Path(f"/proc/{child}/comm").read_text().strip() == "sleep")  # past the exec
        assert (Path(f"/proc/{child}").stat().st_uid == os.geteuid()) == (user is None)
        parent.kill()
        eventually(lambda: not is_alive(child))


def test_what_a_process_leaves_in_its_group_is_ended_with_it() -> None:
    leaves = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    child = spawn([sys.executable, "-c", leaves], name="parent of a stray", stdout=subprocess.PIPE)
    stray = int(child.stdout.readline())
    assert child.wait(60) == 0 and is_alive(stray)
    assert child.end() == 0
    eventually(lambda: not is_alive(stray))


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
