"""Server of a home for the time of a command: the running server, or one that is started for the command."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from core.settings import Settings
from worker.embedded.instance import private_home
from worker.embedded.locks import acquire, locked, shared
from worker.embedded.serve import ServeFailed, is_serving
from worker.processes import ChildProcess, spawn

START_SECONDS: Final = 600
"""Longest wait for a starting server; if all processors are busy, loading takes minutes."""
STOP_SECONDS: Final = 60
COMMAND_LINE: Final = "from secateur.cli import main; main()"
LOOK_SECONDS: Final = 0.1


@contextlib.contextmanager
def serving(settings: Settings, say: Callable[[str], None]) -> Iterator[str]:
    """Yield the URL of this home's server; if none runs, start one on a free port, which ends with the context.

    Commands that run at the same time share that server, and it ends when the last of them has ended. `say` is called
    with a message about a start, and about waiting for others. Raises ServeFailed if the server does not start.
    """
    home = private_home(settings)
    with shared(home / "users.lock") as users:
        server: ChildProcess | None = None
        try:
            with locked(home / "starting.lock"):
                url = _running(home)
                if url is None:
                    say(f"starting a server in {home}, which stops with this command")
                    server = _start(home)
                    url = _wait_for_url(home, server)
            yield url
        finally:
            if server is not None:
                if server.is_running():
                    _wait_for_others(users, say)
                server.end(STOP_SECONDS)


def _start(home: Path) -> ChildProcess:
    (home / "url").unlink(missing_ok=True)
    log = _log(home)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        command = [sys.executable, "-P", "-c", COMMAND_LINE, "serve", "--port", str(_free_port())]
        return spawn(command, name="serve", stdout=output, stderr=subprocess.STDOUT)


def _wait_for_url(home: Path, server: ChildProcess) -> str:
    """Return the URL once the server answers, or the URL of another server that was started at the same time."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and (server.is_running() or is_serving(home)):
        if (url := _running(home)) is not None:
            return url
        time.sleep(LOOK_SECONDS)
    raise ServeFailed(f"The server did not start:\n{_log(home).read_text()}")


def _wait_for_others(users: IO[str], say: Callable[[str], None]) -> None:
    message = "another command uses the server that this one started; it ends once that is done (Ctrl-C ends both)"
    with contextlib.suppress(KeyboardInterrupt):
        acquire(users, lambda: say(message))


def _running(home: Path) -> str | None:
    """Return the URL that the server of a home has written down, if it answers."""
    with contextlib.suppress(FileNotFoundError):
        url = (home / "url").read_text().strip()
        if _answers(url):
            return url
    return None


def _log(home: Path) -> Path:
    return home / "logs" / "serve.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname, where.port), timeout=1).close()
    except OSError:
        return False
    return True
