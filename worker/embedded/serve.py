"""Commands `secateur serve` and `secateur stop`: everything in one home, as processes of one owner.

The owner starts PostgreSQL, the API, a worker and the dispatcher, and watches them. If one ends, the owner reports it
and ends all. The dispatcher is the exception: it holds no state, so it is restarted if it ends or hangs, and the
restart is reported. All parts die with their owner. `serve.json` holds the process id and start time of each part, so
that `stop` can also end parts that survived their owner, and never hits a recycled process id.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from core.service.teams.bootstrap import DEFAULT_TEAM
from core.service.teams.installation import open_own_store
from core.service.teams.server_secret import write_private
from core.settings import Settings
from core.signing import new_private_key, public_key
from worker import alive
from worker.embedded.instance import open_instance, private_files, private_home
from worker.embedded.postgres import is_running, postgres, stop_postgres
from worker.failures import CommandFailed
from worker.node import worker_command
from worker.processes import ChildProcess, spawn, started_at

READY_SECONDS = 600
"""Longest wait for the API and a worker; if all processors are busy, loading takes minutes."""
DRAIN_SECONDS = 30
"""Time for a worker to put its job back into the queue, in addition to the grace time of its runner."""


class ServeFailed(CommandFailed):
    """Failure of the server: it could not start, or one of its parts ended."""


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises ServeFailed where something is in the way or a part ends."""
    home = private_home(settings)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    with private_files(), _alone(home), contextlib.ExitStack() as cleanup:
        check_port(host, port)
        database_url = settings.database_url
        own_database = database_url is None
        if database_url is None:
            database_url = cleanup.enter_context(postgres(home / "postgres"))
        settings = settings.model_copy(update={"home": home, "database_url": database_url})
        if own_database and "hub_token_teams" not in settings.model_fields_set:
            settings = settings.model_copy(update={"hub_token_teams": [DEFAULT_TEAM]})
        if own_database and settings.signing_key is None:
            settings = settings.model_copy(update={"signing_key": _own_signing_key(home)})
        with open_instance(settings) as instance:  # the database is migrated, and the first key exists
            open_own_store(instance.settings, instance.sessions).require_own()
        parts: list[ChildProcess] = []
        cleanup.callback(_end_parts, parts, settings)
        url = url_of(host, port)
        for name, command in part_commands(host, port, settings).items():
            parts.append(_start_part(name, command, settings))
            _write_down(home, parts)
        cleanup.callback((home / "serve.json").unlink, missing_ok=True)
        cleanup.callback((home / "url").unlink, missing_ok=True)
        _wait_until_ready(url, parts, home, stop)
        _put(home / "url", url + "\n")
        if not stop.is_set():
            print(f"Secateur serves at {url}")
            print(
                f"API key: {home / 'api-key'}   logs: {home / 'logs'}   end with Ctrl-C or `secateur stop`", flush=True
            )
        embedded = home / "postgres" if own_database else None
        while not stop.wait(0.2):
            _revive_dispatcher(parts, settings)
            _check_parts(parts, home)
            if embedded is not None and not is_running(embedded):
                raise ServeFailed(f"The database ended; stopping. Its log: {embedded}.log")


def stop(settings: Settings) -> bool:
    """End everything embedded in this home, the database last; return False if nothing ran."""
    home = settings.home.resolve()
    if not home.exists():
        return False
    was_running = False
    with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
        written = json.loads((home / "serve.json").read_text())
        timeout_seconds = settings.cancel_grace_seconds + DRAIN_SECONDS + 10
        was_running = _end_written(written["owner"], timeout_seconds)
        for part in written["parts"]:
            was_running = _end_written(part, settings.cancel_grace_seconds + 10) or was_running
    for name in ("serve.json", "url"):
        (home / name).unlink(missing_ok=True)
    return stop_postgres(home / "postgres") or was_running


def url_of(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a server that listens on an address."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def check_port(host: str, port: int) -> None:
    """Check that the port can be used; raises ServeFailed if it is taken or not allowed for this user."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeFailed(
                f"Port {port} on {host} cannot be used ({error.strerror}); choose another with --port."
            ) from error


def is_serving(home: Path) -> bool:
    """Return whether a server of this home runs, or is about to start."""
    with contextlib.suppress(FileNotFoundError), open(home / "serve.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of the home's only server; the kernel releases it when the holder ends, for whatever reason."""
    with open(home / "serve.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = (home / "url").read_text().strip() if (home / "url").exists() else "starting"
            raise ServeFailed(f"A server already runs in {home} ({where}); end it with `secateur stop`.") from None
        yield


def part_commands(host: str, port: int, settings: Settings) -> dict[str, list[str]]:
    return {
        "api": [
            *(sys.executable, "-m", "uvicorn", "--factory", "api.start:create_app"),
            *("--http", "api.slow_clients:BoundedConnection", "--no-proxy-headers"),
            *("--host", host, "--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "3"),
        ],
        "worker": [sys.executable, "-m", "worker"] if settings.devices else worker_command(settings),
        "dispatcher": [sys.executable, "-m", "worker.dispatcher"],
    }


def part_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that a part needs besides its owner's environment."""
    assert settings.database_url is not None
    signing_key = {} if settings.signing_key is None else {"SECATEUR_SIGNING_KEY": str(settings.signing_key.resolve())}
    return signing_key | {
        "SECATEUR_HOME": str(settings.home),
        "SECATEUR_DATABASE_URL": settings.database_url,
        "SECATEUR_HUB_TOKEN_TEAMS": ",".join(settings.hub_token_teams),
    }


def _own_signing_key(home: Path) -> Path:
    """Return the file in the home with the key that signs artifacts; generated on first use (0600).

    Beside it stands its public key, for those who verify artifacts.
    """
    file = home / "signing-key"
    if not file.exists():
        write_private(file, new_private_key())
    (home / "signing-key.pub").write_text(public_key(file).pem)
    return file


def _start_part(name: str, command: list[str], settings: Settings) -> ChildProcess:
    if name == "dispatcher":
        alive.forget("dispatcher", settings)  # remove the sign of life of an earlier dispatcher
    log = _log(settings.home, name)
    log.parent.mkdir(exist_ok=True)
    environment = {**os.environ, **part_environment(settings)}
    with open(log, "ab") as output:
        return spawn(
            command, name=name, stdout=output, stderr=subprocess.STDOUT, environment=environment, folder=settings.home
        )


def _end_parts(parts: list[ChildProcess], settings: Settings) -> None:
    """End the parts, the API last: a worker that gives its job back still sends events to watchers."""

    def end(part: ChildProcess) -> None:
        part.end(settings.cancel_grace_seconds + DRAIN_SECONDS if part.name == "worker" else 10)

    with ThreadPoolExecutor() as pool:
        list(pool.map(end, [part for part in parts if part.name != "api"]))
    for part in parts:
        end(part)


def _check_parts(parts: list[ChildProcess], home: Path) -> None:
    for part in parts:
        if not part.is_running():
            log = _log(home, part.name)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ServeFailed(f"The {part.name} ended with exit code {part.exit_code}; stopping.\n{log}:\n{tail}")


def _revive_dispatcher(parts: list[ChildProcess], settings: Settings) -> None:
    """Restart the dispatcher where it has ended, or has ended no round for long.

    One that never ended a round would not the next time either, and is left as it is.
    """
    [place] = [place for place, part in enumerate(parts) if part.name == "dispatcher"]
    silent = alive.seconds_silent("dispatcher", settings)
    has_ended = not parts[place].is_running()
    if silent == float("inf") or (not has_ended and silent <= alive.longest_silence("dispatcher", settings)):
        return
    code = parts[place].end()
    what = f"ended with exit code {code}" if has_ended else f"stood still for {silent:.0f} s"
    print(f"The dispatcher {what}; starting it anew. Its log: {_log(settings.home, 'dispatcher')}", flush=True)
    parts[place] = _start_part("dispatcher", part_commands("", 0, settings)["dispatcher"], settings)
    _write_down(settings.home, parts)


def _wait_until_ready(url: str, parts: list[ChildProcess], home: Path, stop: threading.Event) -> None:
    deadline = time.monotonic() + READY_SECONDS
    problem = "no answer"
    while not stop.wait(0.1):
        _check_parts(parts, home)
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                ready = json.load(answer)
            if ready["can_run"]:
                return
            problem = f"no worker is up: {ready['checks']}"
        except urllib.error.HTTPError as error:
            with error:
                problem = error.read().decode(errors="replace")
        except OSError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise ServeFailed(f"The server was not ready within {READY_SECONDS} s: {problem}")


def _log(home: Path, name: str) -> Path:
    return home / "logs" / f"{name}.log"


def _write_down(home: Path, parts: list[ChildProcess]) -> None:
    written = {
        "owner": {"name": "serve", "pid": os.getpid(), "started_at": started_at(os.getpid())},
        "parts": [{"name": part.name, "pid": part.pid, "started_at": started_at(part.pid)} for part in parts],
    }
    _put(home / "serve.json", json.dumps(written, indent=1))


def _put(file: Path, text: str) -> None:
    """Write the file atomically, so that a process that waits for it reads it completely."""
    new_file = file.with_name(f"{file.name}.new")
    new_file.write_text(text)
    new_file.rename(file)


def _end_written(entry: dict[str, object], timeout_seconds: float) -> bool:
    """End a process recorded in `serve.json`, and the rest of its group; return False if it no longer exists.

    A process id counts only together with its start time. If the leader is gone but members are left, the group's id
    still names the old group: the kernel does not reuse it before they end.
    """
    pid, written_start = int(str(entry["pid"])), entry["started_at"]
    leader_start = started_at(pid)
    if leader_start is not None and leader_start != written_start:
        return False
    members = _group(pid) if entry["name"] != "serve" else []
    if leader_start is None and not members:
        return False
    if leader_start is not None:
        members.insert(0, psutil.Process(pid))
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    deadline = time.monotonic() + timeout_seconds
    while any(started_at(member.pid) for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    return True


def _group(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if process.pid != leader and os.getpgid(process.pid) == leader:
                members.append(process)
    return members
