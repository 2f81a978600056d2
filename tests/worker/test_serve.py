"""`secateur serve` and `secateur stop`, as a user runs them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import httpx
import psutil
import pytest

from bench.parts import free_port
from core.settings import Settings
from tests.runner.models import write_model, write_words
from tests.worker.conftest import eventually, is_alive
from tests.worker.forked_parts import fork_part
from worker import alive
from worker.embedded.serve import stop
from worker.embedded.serving import serving
from worker.processes import ChildProcess, spawn


def secateur(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, forked: the server of the house is what is started by its command line."""
    module = (sys.executable, "-m", "tests.worker.secateur_command")
    with TemporaryFile() as said:
        part = fork_part((*module, *arguments), name="secateur", log=said, environment=environment(home), has_pipe=True)
        try:
            printed, code = part.stdout.read().decode(), part.wait(120)
        finally:
            part.end()
        assert code is not None, f"secateur {' '.join(arguments)} does not end"
        said.seek(0)
        return subprocess.CompletedProcess(arguments, code, printed, said.read().decode())


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from secateur.cli import main; main()", *arguments]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    return {**kept, "SECATEUR_HOME": str(home), "SECATEUR_CANCEL_GRACE_SECONDS": "2"}


def settings_of(home: Path) -> Settings:
    return Settings(home=home, cancel_grace_seconds=2)


@contextmanager
def a_home() -> Iterator[Path]:
    with TemporaryDirectory(prefix="secateur-test-") as folder:
        path = Path(folder, "home")
        yield path
        stop(settings_of(path))


@pytest.fixture
def new_home() -> Iterator[Path]:
    with a_home() as path:
        yield path


@pytest.fixture(scope="module")
def lasting_home() -> Iterator[Path]:
    """A home that is served again and again, as homes are: its database is made once."""
    with a_home() as path:
        path.mkdir()
        (path / "readyz").write_text('{"can_run": true}')  # what light parts answer
        yield path


Start = Callable[..., ChildProcess]


@pytest.fixture
def home(lasting_home: Path) -> Path:
    stop(settings_of(lasting_home))  # what a test before has left
    return lasting_home


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts a server, whose parts are those of `tests.worker.light_serve` unless said otherwise, and has it up."""
    started: list[ChildProcess] = []

    def serve(*, is_light: bool = True, host: str = "127.0.0.1") -> ChildProcess:
        arguments, variables = ("serve", "--host", host, "--port", str(free_port())), environment(home)
        with open(home.with_name("serve.out"), "wb") as output:
            if is_light:
                module = (sys.executable, "-m", "tests.worker.light_serve")
                server = fork_part((*module, *arguments), name="serve", log=output, environment=variables)
            else:
                server = spawn(
                    command(*arguments), name="serve", stdout=output, stderr=subprocess.STDOUT, environment=variables
                )
        started.append(server)
        eventually(lambda: (home / "url").exists() or not server.is_running())
        assert server.is_running(), output_of(home)
        return server

    yield serve
    for server in started:
        server.end(grace_seconds=30)


def output_of(home: Path) -> str:
    """Return what the last server said."""
    return home.with_name("serve.out").read_text()


def family(server: ChildProcess) -> dict[str, list[int]]:
    """Every process of a server, by what it is."""
    found: dict[str, list[int]] = {"postgres": [], "uvicorn": [], "worker.dispatcher": [], "worker@%h": []}
    for process in psutil.Process(server.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # PostgreSQL's own end when they are done
            words = process.cmdline()
            for name, pids in found.items():
                if any(name in word for word in words):
                    pids.append(process.pid)
    assert all(found.values()), found
    return found


def everybody(server: ChildProcess) -> list[int]:
    return [pid for pids in family(server).values() for pid in pids]


def written(home: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((home / "serve.json").read_text())
    return answer


def test_a_busy_port_is_named_before_anything_starts(new_home: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        refused = secateur(new_home, "serve", "--port", str(port))
    assert refused.returncode == 1 and str(port) in refused.stderr
    assert not (new_home / "postgres").exists()


def test_stop_ends_parts_whose_owner_is_gone_and_never_a_recycled_id(new_home: Path) -> None:
    new_home.mkdir()
    sleeper = spawn(["sleep", "600"], name="left over")
    stranger = spawn(["sleep", "600"], name="stranger")
    started = psutil.Process(sleeper.pid).create_time()
    parts = [
        {"name": "worker", "pid": sleeper.pid, "started_at": started},
        {"name": "api", "pid": stranger.pid, "started_at": started - 1000},
    ]
    owner = {"name": "serve", "pid": stranger.pid, "started_at": started - 1000}
    (new_home / "serve.json").write_text(json.dumps({"owner": owner, "parts": parts}))
    try:
        assert "Stopped" in secateur(new_home, "stop").stdout
        assert not sleeper.is_running() and stranger.is_running()
    finally:
        sleeper.end()
        stranger.end()


def test_it_serves_until_it_is_stopped_leaves_nothing_running_and_starts_again_after_kill_9(
    home: Path, start: Start
) -> None:
    server = start(is_light=False)
    url = (home / "url").read_text().strip()
    key = (home / "api-key").read_text().strip()
    assert (home / "api-key").stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert httpx.get(f"{url}/v1/methods", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    eventually(lambda: url in output_of(home) and str(home / "api-key") in output_of(home))
    pids = everybody(server)

    again = secateur(home, "serve", "--port", str(free_port()))
    assert again.returncode == 1 and "already runs" in again.stderr and url in again.stderr

    server.send(signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, pids)))
    assert (home / "serve.json").exists() and secateur(home, "stop").returncode == 0
    assert not (home / "serve.json").exists()
    server = start()
    pids = [process.pid for process in psutil.Process(server.pid).children(recursive=True)]
    stopped = secateur(home, "stop")
    assert stopped.returncode == 0 and "Stopped" in stopped.stdout
    assert server.wait(60) == 0
    eventually(lambda: not any(map(is_alive, pids)))
    assert not (home / "url").exists()
    assert "Nothing" in secateur(home, "stop").stdout


def test_nobody_else_reads_what_a_home_holds_and_held(home: Path, start: Start) -> None:
    start().end(grace_seconds=30)
    old, outside, linked = home / "logs" / "old.log", home.with_name("outside"), home / "linked"
    old.write_text("a text of a user")
    outside.mkdir()
    linked.symlink_to(outside)
    (home / "logs" / "api.log").unlink()
    for path, mode in ((home, 0o755), (home / "logs", 0o755), (old, 0o644), (outside, 0o755)):
        path.chmod(mode)
    above = home.parent.stat().st_mode
    start()
    assert home.stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)  # root's PostgreSQL is another user
    open_to_others = [path for path in home.iterdir() if not path.is_symlink() and path.stat().st_mode & 0o077]
    assert not open_to_others
    assert (home / "logs" / "api.log").stat().st_mode & 0o777 == 0o600
    assert outside.stat().st_mode & 0o777 == 0o755 and home.parent.stat().st_mode == above


def test_the_address_that_a_server_writes_down_is_one_that_clients_reach(home: Path, start: Start) -> None:
    start(host="::")
    url = (home / "url").read_text().strip()
    with serving(settings_of(home), lambda _: None) as served:
        assert served == url and httpx.get(f"{url}/readyz").json() == {"can_run": True}


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dispatcher_that_ended_or_stands_still_is_started_anew(home: Path, start: Start, fault: int) -> None:
    server = start()
    pids = {each["name"]: each["pid"] for each in written(home)["parts"]}
    sign_of_life = home / "dispatcher.alive"
    alive.touch("dispatcher", Settings(home=home))  # a round has ended
    os.kill(pids["dispatcher"], fault)
    if fault == signal.SIGSTOP:
        os.utime(sign_of_life, (0, 0))  # and long ago

    def new_one() -> dict[str, int] | None:
        now = {each["name"]: each["pid"] for each in written(home)["parts"]}
        return now if now["dispatcher"] != pids["dispatcher"] else None

    now = eventually(new_one)
    assert not is_alive(pids["dispatcher"]) and is_alive(now["dispatcher"]) and not sign_of_life.exists()
    assert now == {**pids, "dispatcher": now["dispatcher"]} and server.is_running()
    said = "ended with exit code -9" if fault == signal.SIGKILL else "stood still for"
    assert f"The dispatcher {said}" in output_of(home)


@pytest.mark.parametrize("part", ["worker", "database"])
def test_each_part_is_watched(home: Path, start: Start, part: str) -> None:
    server = start()
    pids = {each["name"]: each["pid"] for each in written(home)["parts"]}
    children = psutil.Process(server.pid).children(recursive=True)
    pids["database"] = next(each.pid for each in children if each.name() == "postgres")  # its first: the postmaster
    os.kill(pids[part], signal.SIGKILL)
    assert server.wait(60) == 1
    assert f"The {part} ended" in output_of(home)
    assert not any(map(is_alive, pids.values()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all(home: Path, start: Start, number: int) -> None:
    server = start()
    pids = [process.pid for process in psutil.Process(server.pid).children(recursive=True)]
    assert len(pids) >= 4
    server.send(number)
    assert server.wait(90) == 0, output_of(home)
    eventually(lambda: not any(map(is_alive, pids)))
    assert not (home / "serve.json").exists()


def test_one_command_prunes_with_a_server_that_ends_with_the_last_that_uses_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(home.with_name("elm"), 2)
    write_words(home.with_name("words.txt"))
    monkeypatch.setenv("SECATEUR_HOME", str(home))
    said: list[str] = []
    asked = ("--for", "sparsity", "--amount", "0.5", "--calibration", str(home.with_name("words.txt")))
    pruned = home.with_name("pruned")
    with serving(settings_of(home), said.append) as url:
        assert "starting a server in" in said[0]
        done = secateur(home, "prune", str(home.with_name("elm")), "-o", str(pruned), *asked)
        assert done.returncode == 0, done.stderr
        assert "starting a server" not in done.stderr and "AutoModelForCausalLM" in done.stdout
        assert httpx.get(f"{url}/readyz").status_code == 200, "it is not that command's to end"
    assert not (home / "url").exists() and "Nothing was running." in secateur(home, "stop").stdout
    verified = secateur(home, "verify", str(pruned), "--key", str(home / "signing-key.pub"))
    assert verified.returncode == 0 and "as signed by key" in verified.stdout, verified.stderr
    assert (home / "signing-key").stat().st_mode & 0o777 == 0o600
