"""Failover of the database: `python -m bench.failover`. A primary is killed while jobs run, and its replica promoted.

API, dispatcher and workers, whose method does nothing, name both hosts, and none of them is started anew. Afterwards
the old primary comes back as it was, writable, as after a mistake. Needs PostgreSQL of Debian's packages; as root the
servers run as `postgres`.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from bench.load_fleet import MODEL, Fleet
from bench.parts import free_port, until
from secateur import Client, errors

_WORKERS = 2
_PATIENCE_SECONDS = 180.0
_BEFORE = 2
"""Jobs that succeed before the primary is killed; others run then."""
_EVERY_SECONDS = 2.0
_LAG_SECONDS = 3.0
_JOBS = "SELECT id, status FROM jobs"
_SYSTEM_USER = "postgres"
_PROGRAMS = Path("/usr/lib/postgresql")
_READY_SECONDS = 60.0


@dataclass
class Outcome:
    """Outcome of one failover; times are in seconds from the kill."""

    kind: str
    promoted_seconds: float
    answered_again_seconds: float
    ran_again_seconds: float
    answered: int
    lost: int
    on_old_primary: int
    not_succeeded: int
    ended: list[str]


class _Submitter(threading.Thread):
    """Client that submits a job every two seconds, and keeps the ids that it was answered, with the time."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(daemon=True)
        self.answered: dict[str, float] = {}
        self._url, self._key = url, key
        self._over = threading.Event()

    def run(self) -> None:
        with Client(self._url, self._key, timeout=10, retries=0) as client:
            while not self._over.wait(_EVERY_SECONDS):
                try:
                    job = client.submit(model=MODEL, method="magnitude", sparsity=0.5)
                except errors.SecateurError:
                    continue
                self.answered[job.id] = time.monotonic()

    def stop(self) -> None:
        self._over.set()
        self.join(30)


class Server:
    """One server with its data in a folder, on a port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()

    @property
    def url(self) -> str:
        """Return the address of this server alone, as libpq takes it."""
        return f"postgresql://{_SYSTEM_USER}@127.0.0.1:{self.port}/postgres?connect_timeout=3"

    def start(self) -> None:
        """Start it and wait until it answers."""
        _run("pg_ctl", "start", "-D", self.folder, "-o", f"-p {self.port}", "-l", f"{self.folder}.log", "-w")

    def kill(self) -> None:
        """End all its processes by SIGKILL, as a loss of power would."""
        pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
        for each in (pid, *map(int, listed.stdout.split())):
            os.kill(each, signal.SIGKILL)

    def stop(self) -> None:
        """Stop it where it runs."""
        subprocess.run(
            _command("pg_ctl", "stop", "-D", self.folder, "-m", "immediate"), check=False, stdout=-3, stderr=-3
        )

    def promote(self) -> None:
        """Make a replica a primary, and wait until it is one."""
        _run("pg_ctl", "promote", "-D", self.folder, "-w")

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            return bool(self.run("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement of an administrator; returns its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


class Replicated:
    """Primary and replica. With `is_synchronous` the primary answers no commit that the replica does not have."""

    def __init__(self, folder: Path, *, is_synchronous: bool) -> None:
        folder.mkdir(parents=True)
        for parent in (folder, *folder.parents[:2]):
            if str(parent).startswith("/tmp/"):
                parent.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, _SYSTEM_USER)
        self.primary, self.replica = Server(folder / "primary"), Server(folder / "replica")
        self._is_synchronous = is_synchronous

    def start(self) -> None:
        """Start both, and wait until the replica follows."""
        _run("initdb", "-D", self.primary.folder, "-A", "trust", "-E", "UTF8", "-U", _SYSTEM_USER, "-N")
        with (self.primary.folder / "postgresql.conf").open("a") as file:
            file.write("unix_socket_directories = ''\nlisten_addresses = '127.0.0.1'\nwal_keep_size = '512MB'\n")
        self.primary.start()
        _run("pg_basebackup", "-R", "-X", "stream", "-c", "fast", "-D", self.replica.folder, "-d", self.primary.url)
        self.replica.start()
        if self._is_synchronous:
            self.primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.primary.run("SELECT pg_reload_conf()")
        state = "sync" if self._is_synchronous else "async"
        query = f"SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}'"
        until(lambda: self.primary.run(query), _READY_SECONDS, f"the replica follows ({state})")

    def fail_over(self, *, lag_seconds: float = 0) -> None:
        """Kill the primary and promote the replica, which got nothing of the last `lag_seconds`."""
        if lag_seconds:
            [[receiver]] = self.replica.run("SELECT pid FROM pg_stat_wal_receiver")
            os.kill(int(str(receiver)), signal.SIGSTOP)
            time.sleep(lag_seconds)
            self.primary.kill()
            os.kill(int(str(receiver)), signal.SIGKILL)
            until(self.replica.is_up, _READY_SECONDS, "the replica is back")
        else:
            self.primary.kill()
        if self._is_synchronous:
            self.replica.run("ALTER SYSTEM SET synchronous_standby_names = ''")
        self.replica.promote()

    def stop(self) -> None:
        """Stop both."""
        for server in (self.replica, self.primary):
            server.stop()


def _command(program: str, *words: object) -> list[str]:
    found = max(_PROGRAMS.glob(f"*/bin/{program}"), key=lambda path: int(path.parts[-3]))
    user: Sequence[str] = ("setpriv", "--reuid", _SYSTEM_USER, "--regid", _SYSTEM_USER, "--init-groups")
    return [*(user if os.geteuid() == 0 else ()), str(found), *map(str, words)]


def _run(program: str, *words: object) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    with open(os.devnull, "r+b") as nothing:
        done = subprocess.run(
            _command(program, *words), stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, env=environment, cwd="/"
        )
    if done.returncode != 0:
        raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-1000:]}")


def fail_over(folder: Path, *, is_synchronous: bool, lag_seconds: float = 0) -> Outcome:
    """Return what came of one failover, with the old primary back afterwards."""
    pair = Replicated(folder / "servers", is_synchronous=is_synchronous)
    hosts = f"127.0.0.1:{pair.primary.port},127.0.0.1:{pair.replica.port}"
    try:
        pair.start()
        url = f"postgresql+psycopg://postgres@{hosts}/postgres"
        with Fleet(folder / "service", _WORKERS, database_url=url) as fleet:
            pids = {name: fleet.pid(name) for name in fleet.names}
            [key] = fleet.keys(1, 1)
            submitter = _Submitter(fleet.url, key)
            submitter.start()
            primary, replica = pair.primary, pair.replica
            until(lambda: _count(primary.run(_JOBS), "succeeded") >= _BEFORE, _PATIENCE_SECONDS, "jobs succeed")
            killed_at = time.monotonic()
            done_before = _count(primary.run(_JOBS), "succeeded")
            pair.fail_over(lag_seconds=lag_seconds)
            killed_at += lag_seconds
            promoted = time.monotonic() - killed_at
            until(lambda: max(submitter.answered.values()) > killed_at + promoted, _PATIENCE_SECONDS, "an answer")
            answered_again = max(submitter.answered.values()) - killed_at
            until(lambda: _count(replica.run(_JOBS), "succeeded") > done_before, _PATIENCE_SECONDS, "a job succeeds")
            ran_again = time.monotonic() - killed_at
            last_on_old = set(submitter.answered)
            primary.start()  # as it was: nobody told it that it is none any more
            time.sleep(5)
            submitter.stop()
            new = {str(job): str(status) for job, status in replica.run(_JOBS)}
            until(lambda: all(s == "succeeded" for _, s in replica.run(_JOBS)), _PATIENCE_SECONDS, "all succeed")
            old = {str(job) for job, _ in primary.run(_JOBS)}
            return Outcome(
                kind=("synchronous" if is_synchronous else "asynchronous") + (", lagging" if lag_seconds else ""),
                promoted_seconds=round(promoted, 1),
                answered_again_seconds=round(answered_again, 1),
                ran_again_seconds=round(ran_again, 1),
                answered=len(submitter.answered),
                lost=len(set(submitter.answered) - set(new)),
                on_old_primary=len((old & set(submitter.answered)) - last_on_old),
                not_succeeded=sum(status != "succeeded" for _, status in replica.run(_JOBS)),
                ended=[name for name in pids if not fleet.is_running(name)],
            )
    finally:
        pair.stop()


def _count(rows: list[tuple[object, ...]], status: str) -> int:
    return sum(row[1] == status for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--kind", choices=("synchronous", "asynchronous", "lagging"), action="append")
    kinds = parser.parse_args().kind or ["synchronous", "asynchronous", "lagging"]
    is_well = True
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="secateur-failover-", ignore_cleanup_errors=True) as name:
            lag = _LAG_SECONDS if kind == "lagging" else 0.0
            outcome = fail_over(Path(name), is_synchronous=kind == "synchronous", lag_seconds=lag)
        print(json.dumps(asdict(outcome)), flush=True)
        is_well &= not (outcome.on_old_primary or outcome.not_succeeded or outcome.ended)
        is_well &= kind == "lagging" or outcome.lost == 0
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
