"""Refused keys, recorded in the audit trail.

The first few refusals of a network in a minute get a row each; the others are added as a count after the minute. A
process writes a limited number of rows an hour, and fewer into the trail of one team; refusals beyond that become one
count for the hour. So no attack fills a table, whatever addresses it uses.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from api.process.proxies import network_of
from core.database import transaction
from core.service.teams.audit import note_refusals
from core.service.teams.keys import owner_of

EACH = 5
"""Maximum number of rows of one network in a minute; further refusals are counted."""
MOST_NETWORKS = 20
"""Maximum number of networks with their own count in a minute, by process; others are counted together."""
WINDOW_SECONDS = 60.0
ROWS_AN_HOUR = 100
"""Maximum number of rows of a process in an hour, besides one hourly count for each of at most `MOST_TEAMS` teams."""
TEAM_ROWS_AN_HOUR = 20
"""Maximum number of rows in an hour in the trail of one team: anyone who knows the beginning of its key can cause
them."""
MOST_TEAMS = 20
HOUR_SECONDS = 3600.0
MANY = "refused as those before it"

Owner = tuple[str, str]
"""Team and id of a known key."""

log = structlog.get_logger()


@dataclass
class _Window:
    ends: float
    written: int = 0
    counted: int = 0


class _Hour:
    """Rows of one hour, and the refusals without a row."""

    def __init__(self) -> None:
        self.ends = time.monotonic() + HOUR_SECONDS
        self.counted: dict[str | None, tuple[Owner | None, int]] = {}
        """An owner and the number of refusals, by team. None: keys of no team, and of teams beyond `MOST_TEAMS`."""
        self._rows = 0
        self._rows_of_team: Counter[str] = Counter()

    @property
    def is_full(self) -> bool:
        return self._rows >= ROWS_AN_HOUR

    def takes(self, owner: Owner | None, refusals: int) -> bool:
        """Return whether a row may be written, and count the row; otherwise count its refusals."""
        team = owner[0] if owner else None
        if self.is_full or (team is not None and self._rows_of_team[team] >= TEAM_ROWS_AN_HOUR):
            if team not in self.counted and len(self.counted) >= MOST_TEAMS:
                owner = team = None
            self.counted[team] = (owner, refusals + self.counted.get(team, (None, 0))[1])
            return False
        self._rows += 1
        if team is not None:
            self._rows_of_team[team] += 1
        return True


class RefusedKeys:
    """Calls with invalid keys, counted in one process."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._windows: dict[str | None, _Window] = {}
        self._hour = _Hour()
        self._lock = threading.Lock()

    def note(self, address: str, token: str, reason: str) -> None:
        """Record that a token from an address was refused. The token itself is stored nowhere."""
        if self._is_counted(network_of(address)):
            return
        with transaction(self._sessions) as session:
            owner = owner_of(session, token)
            with self._lock:
                is_row = self._hour.takes(owner, 1)
            if is_row:
                note_refusals(session, owner, address=address, reason=reason, count=1)

    def _is_counted(self, network: str) -> bool:
        with self._lock:
            if self._hour.is_full:  # The key's owner is looked up only for a row that is written.
                self._hour.takes(None, 1)
                return True
            has_own_window = network in self._windows or len(self._windows) < MOST_NETWORKS
            window = self._windows.setdefault(
                network if has_own_window else None, _Window(time.monotonic() + WINDOW_SECONDS)
            )
            if has_own_window and window.written < EACH:
                window.written += 1
                return False
            window.counted += 1
            return True

    def flush(self, *, everything: bool = False) -> None:
        """Write the counts of past minutes, and of a past hour."""
        now = time.monotonic()
        rows: list[tuple[Owner | None, str | None, int]] = []
        with self._lock:
            over = {network: each for network, each in self._windows.items() if everything or each.ends <= now}
            for network, window in over.items():
                del self._windows[network]
                if window.counted and self._hour.takes(None, window.counted):
                    rows.append((None, network, window.counted))
            if everything or self._hour.ends <= now:
                rows += [(owner, None, count) for owner, count in self._hour.counted.values()]
                self._hour = _Hour()
        if not rows:
            return
        with transaction(self._sessions) as session:
            for owner, network, count in rows:
                note_refusals(session, owner, address=network, reason=MANY, count=count)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write the counts every few seconds while the context is open, and at its end."""

        async def flush_often() -> None:
            while True:
                await asyncio.sleep(WINDOW_SECONDS / 12)
                await to_thread.run_sync(self._try_flush)

        task = asyncio.create_task(flush_often())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await to_thread.run_sync(lambda: self._try_flush(everything=True))

    def _try_flush(self, *, everything: bool = False) -> None:
        try:
            self.flush(everything=everything)
        except SQLAlchemyError as error:
            log.warning("refused keys not written down", error=str(error))
