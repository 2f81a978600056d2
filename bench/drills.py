"""Drills of operators before a release, on a fleet whose jobs do nothing: `python -m bench.drills failover|upgrade`.

`failover`: a primary is killed while jobs run, its replica promoted, and no process started anew; then the old primary
comes back writable, as after a mistake. Needs PostgreSQL of Debian's packages; as root it runs as `postgres`.

`upgrade --from REVISION`: two releases share one database. The older one takes jobs while the newer one's migrations
are held up and killed, and then finish; both run beside each other, and the older one ends. All jobs must succeed.
"""

import argparse
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psycopg

from bench.load_fleet import MODEL, Fleet
from bench.parts import free_port, until
from core.database import migrate
from core.database_url import libpq_url
from secateur import Client, errors
from worker.embedded.postgres import postgres

ROOT: Final = Path(__file__).resolve().parent.parent
_PATIENCE_SECONDS, _READY_SECONDS = 240.0, 60.0
_JOBS: Final = "SELECT id, status FROM jobs"
_SYSTEM_USER: Final = "postgres"
_ENDED: Final = ("succeeded", "failed", "cancelled")
OLDER: Final = ("older-api", "older-dispatcher", "older-worker-0")
_KEYS: Final = """
import json, sys
from pathlib import Path
from bench.load_fleet import Fleet
from core.settings import Settings
fleet = Fleet(Path(sys.argv[1]), 0)
fleet.connect(Settings().database_url)
print(json.dumps(fleet.keys(1, 1)))
"""
_MIGRATE: Final = "from core.database import migrate; from core.settings import Settings; migrate(Settings())"


class Server:
    """One server with its data in a folder, on a port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"postgresql://{_SYSTEM_USER}@127.0.0.1:{self.port}/postgres?connect_timeout=3"

    def start(self) -> None:
        """Start it and wait until it answers."""
        _run("pg_ctl", "start", "-D", self.folder, "-o", f"-p {self.port}", "-l", f"{self.folder}.log", "-w")

    def kill(self) -> None:
        """End all its processes by SIGKILL, as a loss of power would."""
        pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
        for each in (pid, *map(int, listed.stdout.split())):
            os.kill(each, signal.SIGKILL)

    def close(self) -> None:
        """Stop it where it runs."""
        if (self.folder / "postmaster.pid").exists():
            _run("pg_ctl", "stop", "-D", self.folder, "-m", "immediate")

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement of an administrator; return its rows, none while the server is away."""
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            return []

    def jobs(self) -> dict[str, str]:
        """Return the states of all jobs."""
        return dict(self.ask(_JOBS))


def _run(program: str, *words: object) -> None:
    found = max(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3]))
    user = ("setpriv", "--reuid", _SYSTEM_USER, "--regid", _SYSTEM_USER, "--init-groups") if os.geteuid() == 0 else ()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    with open(os.devnull, "r+b") as nothing:
        command = [*user, str(found), *map(str, words)]
        subprocess.run(command, stdin=nothing, stdout=nothing, env=environment, cwd="/", check=True)


def _replicated(folder: Path, *, is_synchronous: bool) -> tuple[Server, Server]:
    """Start a primary and a replica that follows it. A synchronous one has each commit that the primary answers."""
    folder.mkdir(parents=True)
    for parent in (folder, *folder.parents[:2]):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(folder, _SYSTEM_USER)
    primary, replica = Server(folder / "primary"), Server(folder / "replica")
    _run("initdb", "-D", primary.folder, "-A", "trust", "-E", "UTF8", "-U", _SYSTEM_USER, "-N")
    with (primary.folder / "postgresql.conf").open("a") as file:
        file.write("unix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\nwal_keep_size = '512MB'\n")
    primary.start()
    _run("pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", replica.folder, "-d", primary.url)
    replica.start()
    if is_synchronous:
        primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.ask("SELECT pg_reload_conf()")
    state = "sync" if is_synchronous else "async"
    query = f"SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}'"
    until(lambda: primary.ask(query), _READY_SECONDS, f"the replica follows ({state})")
    return primary, replica


def _submit(client: Client, answered: dict[str, float]) -> bool:
    """Submit a job, and keep its id with the time; return whether it was answered."""
    try:
        job = client.submit(model=MODEL, method="magnitude", sparsity=0.5)
    except errors.SecateurError:
        return False
    answered[job.id] = time.monotonic()
    return True


def fail_over(folder: Path, kind: str) -> tuple[dict[str, object], bool]:
    """Return what came of one failover, seconds being counted from the kill, and whether it is as it should be."""
    is_synchronous = kind == "synchronous"
    primary, replica = _replicated(folder / "servers", is_synchronous=is_synchronous)
    url = f"postgresql+psycopg://postgres@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres"
    with closing(primary), closing(replica), Fleet(folder / "service", 2, database_url=url) as fleet:
        names, over, answered = fleet.names, threading.Event(), dict[str, float]()
        [key] = fleet.keys(1, 1)

        def go_on() -> None:
            with Client(fleet.url, key, timeout=10, retries=0) as client:
                while not over.wait(2):
                    _submit(client, answered)

        submitter = threading.Thread(target=go_on, daemon=True)
        submitter.start()

        def succeeded(server: Server) -> int:
            return list(server.jobs().values()).count("succeeded")

        until(lambda: succeeded(primary) >= 2, _PATIENCE_SECONDS, "jobs succeed")
        before = succeeded(primary)
        primary.kill()
        killed_at = time.monotonic()
        if is_synchronous:
            replica.ask("ALTER SYSTEM SET synchronous_standby_names = ''")
        _run("pg_ctl", "promote", "-D", replica.folder, "-w")
        promoted_at = time.monotonic()
        until(lambda: max(answered.values()) > promoted_at, _PATIENCE_SECONDS, "an answer")
        answered_again = max(answered.values())
        until(lambda: succeeded(replica) > before, _PATIENCE_SECONDS, "a job succeeds")
        ran_again, before_return = time.monotonic(), set(answered)
        primary.start()  # as it was: nobody told it that it is none any more
        time.sleep(5)
        over.set()
        submitter.join(30)
        new = replica.jobs()
        until(lambda: set(replica.jobs().values()) == {"succeeded"}, _PATIENCE_SECONDS, "all succeed")
        found: dict[str, object] = {
            "kind": kind,
            "promoted_seconds": round(promoted_at - killed_at, 1),
            "answered_again_seconds": round(answered_again - killed_at, 1),
            "ran_again_seconds": round(ran_again - killed_at, 1),
            "answered": len(answered),
            "lost": len(set(answered) - set(new)),
            "on_old_primary": len((set(primary.jobs()) & set(answered)) - before_return),
            "ended": [name for name in names if not fleet.is_running(name)],
        }
        return found, not (found["on_old_primary"] or found["ended"] or found["lost"])


class MixedFleet(Fleet):
    """Fleet that begins with parts of an older release, `older-api` and so on, whose sources are in a folder."""

    def __init__(self, folder: Path, older: Path, url: str) -> None:
        super().__init__(folder, 1, database_url=url)
        self._older, self._older_port, self._url = older, free_port(), url
        self.older_url = f"http://127.0.0.1:{self._older_port}"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cleanup.callback(self.end_all)
        self.connect(self._url)
        self.start_redis()
        for name in OLDER:
            self.start(name)
        until(lambda: httpx.get(f"{self.older_url}/readyz", timeout=5).json()["can_run"], 180, "the older release")
        return self

    def older_key(self) -> str:
        """Return the key of a team that has the model, made by the older release."""
        command, environment = [sys.executable, "-c", _KEYS, str(self.folder)], self._environment("older-keys")
        made = subprocess.run(command, capture_output=True, cwd=self._older, env=environment, check=True)
        return str(json.loads(made.stdout)[0])

    def _command(self, name: str) -> list[str]:
        if name not in OLDER:
            return super()._command(name)
        command = super()._command(name.removeprefix("older-"))
        command = [str(self._older_port) if word == str(self.api_port) else word for word in command]
        return ["env", "-C", str(self._older), *command]

    def _environment(self, name: str) -> dict[str, str]:
        return super()._environment(name) | (_paths(self._older) if name.startswith("older-") else {})


def _paths(sources: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{sources}:{sources / 'client/src'}"}


def _migrate(sources: Path, url: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **_paths(sources), "SECATEUR_DATABASE_URL": url}
    return subprocess.Popen([sys.executable, "-c", _MIGRATE], cwd=sources, env=environment)


def _cut_off(url: str) -> bool:
    """Begin migrations while another transaction holds tables, kill them where they wait; return whether they did."""
    with psycopg.connect(libpq_url(url)) as other, psycopg.connect(libpq_url(url), autocommit=True) as look:
        other.execute("SELECT 1 FROM jobs, teams, models LIMIT 1")
        other.execute("SELECT txid_current()")
        migrator, deadline = _migrate(ROOT, url), time.monotonic() + 60
        while migrator.poll() is None and time.monotonic() < deadline:
            if look.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
                migrator.kill()
                migrator.wait()
                return True
            time.sleep(0.01)
        return False


def upgrade(folder: Path, revision: str) -> tuple[dict[str, object], bool]:
    """Return what came of an upgrade from a revision to these sources, and whether it is as it should be."""
    older = folder / "older"
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(older, filter="data")
    folder.chmod(0o755)  # as root the server runs as another user
    with postgres(folder / "database") as url:
        if _migrate(older, url).wait() != 0:
            raise RuntimeError(f"release {revision} does not migrate")
        with MixedFleet(folder / "service", older, url) as fleet:
            key, refused = fleet.older_key(), 0
            answered, by = dict[str, float](), dict[str, str]()

            def submit(name: str, count: int = 2) -> None:
                nonlocal refused
                with Client(fleet.older_url if name == "older" else fleet.url, key, timeout=20) as client:
                    refused += sum(not _submit(client, answered) for _ in range(count))
                by.update((job, by.get(job, name)) for job in answered)

            submit("older")
            _wait(url, answered)
            was_cut_off = _cut_off(url)
            submit("older")
            _wait(url, answered)
            migrate(fleet.settings)
            submit("older")
            fleet.start_service()
            for name in ("older", "newer") * 2:
                submit(name, 1)
            _wait(url, answered)
            for name in OLDER:
                fleet.kill(name)
            submit("newer")
            statuses = _wait(url, answered)
            logs = {path.stem: path.read_text(errors="replace") for path in fleet.folder.glob("*.log")}
            ran = {
                job: name
                for name, log in (("older", "older-worker-0"), ("newer", "worker-0"))
                for job in re.findall(r'event="job ended".*? job=(job_\w+)', logs.get(log, ""))
            }
            failed = sum(statuses.get(job) != "succeeded" for job in answered)
            return {
                "older": revision,
                "was_cut_off": was_cut_off,
                "answered": len(answered),
                "not_succeeded": failed,
                "refused": refused,
                "by": Counter(f"{name} by {ran.get(job, 'nobody')}" for job, name in by.items()),
                "errors": sum(text.count("level=error") + text.count("Traceback") for text in logs.values()),
            }, bool(answered) and not failed


def _wait(url: str, jobs: Collection[str]) -> dict[str, str]:
    """Return the states of all jobs once those named have ended, or after a while."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        while True:
            statuses: dict[str, str] = dict(connection.execute(_JOBS).fetchall())
            if time.monotonic() > deadline or all(statuses.get(job) in _ENDED for job in jobs):
                return statuses
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.drills", description=__doc__.splitlines()[0])
    parser.add_argument("drill", choices=("failover", "upgrade"))
    kinds = ("synchronous", "asynchronous")
    parser.add_argument("--kind", choices=kinds, action="append", help="of failover; all where none is named")
    parser.add_argument("--from", dest="older", default="HEAD~1", help="revision of the older release of an upgrade")
    asked, is_well = parser.parse_args(), True
    for one in (asked.kind or kinds) if asked.drill == "failover" else (asked.older,):
        with tempfile.TemporaryDirectory(prefix=f"secateur-{asked.drill}-", ignore_cleanup_errors=True) as name:
            found, is_as_it_should = (fail_over if asked.drill == "failover" else upgrade)(Path(name), one)
        print(json.dumps(found), flush=True)
        is_well &= is_as_it_should
    return int(not is_well)


if __name__ == "__main__":
    sys.exit(main())
