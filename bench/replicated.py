"""A PostgreSQL primary and its streaming replica on this machine, of Debian's packages."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from bench.parts import free_port, until

_SYSTEM_USER = "postgres"
_PROGRAMS = Path("/usr/lib/postgresql")
_READY_SECONDS = 60.0


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
