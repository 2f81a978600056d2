"""Refused keys, written into the audit trail.

The first few of an address in a minute are written each for itself, the others as a count once the minute is over: an
attack from anywhere fills no table.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.teams.audit import note_refusals
from core.service.teams.keys import owner_of

EACH = 5
"""Rows of one address in a minute; what is more is counted."""
MOST_ADDRESSES = 20
"""Addresses that are counted singly in a minute, by each process; others are counted together."""
WINDOW_SECONDS = 60.0
MANY = "refused as those before it"

log = structlog.get_logger()


@dataclass
class _Window:
    ends: float
    written: int = 0
    counted: int = 0


class RefusedKeys:
    """Calls with keys that are none, counted in one process."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._windows: dict[str | None, _Window] = {}
        self._lock = threading.Lock()

    def note(self, address: str, token: str, reason: str) -> None:
        """Note that a token from an address was refused. The token itself is written nowhere."""
        if self._is_counted(address):
            return
        with transaction(self._sessions) as session:
            note_refusals(session, owner_of(session, token), address=address, reason=reason, count=1)

    def _is_counted(self, address: str) -> bool:
        with self._lock:
            has_own_window = address in self._windows or len(self._windows) < MOST_ADDRESSES
            window = self._windows.setdefault(
                address if has_own_window else None, _Window(time.monotonic() + WINDOW_SECONDS)
            )
            if has_own_window and window.written < EACH:
                window.written += 1
                return False
            window.counted += 1
            return True

    def flush(self, *, everything: bool = False) -> None:
        """Write the counts of the minutes that are over."""
        now = time.monotonic()
        with self._lock:
            over = {address: each for address, each in self._windows.items() if everything or each.ends <= now}
            for address in over:
                del self._windows[address]
        counted = {address: each.counted for address, each in over.items() if each.counted}
        if not counted:
            return
        with transaction(self._sessions) as session:
            for address, count in counted.items():
                note_refusals(session, None, address=address, reason=MANY, count=count)

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
