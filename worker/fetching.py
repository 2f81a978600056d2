"""What an attempt has fetched: entries of this node's cache, filled by the fetcher where they are missing, and held."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import RunnerLost
from core.settings import Settings
from worker.cache import HeldEntry, NodeCache
from worker.fetcher_protocol import FetchSpec
from worker.protocol import Message
from worker.runner_process import PASSED_ON, run_task

FETCHER: tuple[str, ...] = (sys.executable, "-m", "worker.fetcher")

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_TRIES = 3
"""What was fetched may be removed, to make room for another job, before this one holds it."""


class Fetching:
    """Of one attempt, whose own folder is `folder`. Entries lie safe in the cache until it is closed."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        team_id: str,
        on_message: Callable[[Message], None],
        on_wait: Callable[[], None],
        fetcher: Sequence[str] = FETCHER,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._team_id = team_id
        self._on_message = on_message
        self._on_wait = on_wait
        self._fetcher = fetcher
        self.cache = NodeCache(settings.cache_root.resolve(), max_bytes=settings.cache_max_bytes)
        self._held: list[HeldEntry] = []

    def close(self) -> None:
        for entry in self._held:
            entry.close()

    def entry(self, spec: FetchSpec, *, ask_first: bool) -> Path:
        """The folder of an entry, fetched where it is not there; `ask_first`: the fetcher asks the hub even where it
        is. Raises what the fetcher reports."""
        if ask_first:
            self.fetch(spec)
        for _ in range(_TRIES):
            if (entry := self.find(spec.key)) is not None:
                return entry
            self.fetch(spec)
        if (entry := self.find(spec.key)) is not None:
            return entry
        raise RunnerLost("What was fetched for this job was removed again to make room for others.")

    def find(self, key: str) -> Path | None:
        """The folder of an entry, held from now on; None where it is not there."""
        held = self.cache.find(key)
        if held is None:
            return None
        self._held.append(held)
        return held.path

    def fetch(self, spec: FetchSpec) -> dict[str, Any]:
        """Run the fetcher; its result."""
        return run_task(
            spec,
            log=self._folder / "fetcher.log",
            on_message=self._on_message,
            on_wait=self._on_wait,
            grace_seconds=0,
            command=self._fetcher,
            environment=fetcher_environment(self._settings, self._team_id),
        )


def fetcher_environment(settings: Settings, team_id: str) -> dict[str, str]:
    """Return what the hub's libraries read when they are imported, and what a cloud's credentials come through. What
    those libraries keep is the team's alone."""
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
