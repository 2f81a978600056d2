"""Fetched content of an attempt: locked entries of this node's cache; the fetcher fetches missing ones."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from core.settings import Settings
from core.telemetry import span
from secateur_wire.base import JsonObject
from secateur_wire.errors import RunnerLost
from worker.fetcher.protocol import FetchSpec
from worker.node_cache import LockedEntry, NodeCache
from worker.processes import ChildProcess, spawn
from worker.runner.client import (
    PASSED_ON,
    ReportedFailure,
    memory_kills,
    read_messages,
    unexplained_end,
    wait_for_exit,
)
from worker.runner.messages import ErrorMessage, Message, ResultMessage

FETCHER: tuple[str, ...] = (sys.executable, "-m", "worker.fetcher")

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_TRIES = 3
"""Number of tries to lock an entry; it may be removed, to free space for another job, before it is locked."""


class InputFetcher:
    """Fetches of one attempt, whose own folder is `folder`; cache entries stay locked until it is closed.

    One fetcher is started when it is first needed, and is used until `end`: its libraries take a second or two to load.
    An exception from `on_wait` ends the fetcher and is raised from here.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        team_id: str,
        on_message: Callable[[Message], None],
        on_wait: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.team_id = team_id
        self._on_message = on_message
        self.on_wait = on_wait
        self._fetcher: ChildProcess | None = None
        self.cache = NodeCache(settings.cache_root.resolve(), max_bytes=settings.cache_max_bytes)
        self._entries: list[LockedEntry] = []

    def end(self) -> None:
        """End the fetcher, which holds memory; the next fetch starts another. Entries stay locked."""
        if self._fetcher is not None:
            self._fetcher.end()
            self._fetcher = None

    def close(self) -> None:
        self.end()
        for entry in self._entries:
            entry.close()

    def entry(self, spec: FetchSpec, *, ask_first: bool) -> Path:
        """Return the folder of an entry, fetched if it is missing.

        With `ask_first` the fetcher asks the hub even if the entry is there. Raises the errors that the fetcher
        reports.
        """
        if ask_first:
            self.fetch(spec)
        for _ in range(_TRIES):
            if (entry := self.find(spec.key)) is not None:
                return entry
            self.fetch(spec)
        if (entry := self.find(spec.key)) is not None:
            return entry
        raise RunnerLost("The files that were fetched for this job were removed to make room for others.")

    def find(self, key: str) -> Path | None:
        """Return the folder of an entry and lock the entry; None if it is missing."""
        entry = self.cache.find(key)
        if entry is None:
            return None
        self._entries.append(entry)
        return entry.path

    def fetch(self, spec: FetchSpec) -> JsonObject:
        """Run a spec in the fetcher and return its result; raises `ReportedFailure`, and the errors of `run_task`."""
        with span(f"runner.{spec.task}"):
            self.on_wait()
            kills_before = memory_kills()
            log = self.folder / "fetcher.log"
            fetcher = self._fetcher = self._fetcher or self._start(log)
            try:
                outcome = self._ask(fetcher, spec)
                code = 0 if outcome is not None else wait_for_exit(fetcher, self.on_wait)
            except BaseException:
                self.end()
                raise
            if isinstance(outcome, ErrorMessage):
                raise ReportedFailure(outcome)
            if outcome is None:
                self.end()
                raise unexplained_end(code, spec.task, log, memory_kills() > kills_before)
            return outcome.result

    def _start(self, log: Path) -> ChildProcess:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as stderr:
            return spawn(
                FETCHER,
                name="fetcher",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                environment=fetcher_environment(self.settings, self.team_id),
            )

    def _ask(self, fetcher: ChildProcess, spec: FetchSpec) -> ResultMessage | ErrorMessage | None:
        """Return the fetcher's last message for a spec; None if it ended without one."""
        with contextlib.suppress(BrokenPipeError):  # it died at once: its exit code says why
            fetcher.stdin.write(spec.model_dump_json().encode() + b"\n")
            fetcher.stdin.flush()
        for message in read_messages(fetcher, self.on_wait):
            if isinstance(message, ResultMessage | ErrorMessage):
                return message
            self._on_message(message)
        return None


def fetcher_environment(settings: Settings, team_id: str) -> dict[str, str]:
    """Return the environment of the fetcher: the variables that hub libraries read at import, and cloud credentials.

    Files that these libraries keep on disk belong to one team only.
    """
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.upper() in _PROXIES or name.startswith(("LC_", "AWS_"))
    }
    home = settings.cache_root.resolve() / "hub-client" / team_id
    return passed | {
        "HF_ENDPOINT": settings.hub_endpoint.rstrip("/"),
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "USE_TORCH": "0",
    }
