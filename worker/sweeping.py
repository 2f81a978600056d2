"""Orphans in the store are swept beside the dispatcher's rounds: listing a large store takes longer than one may."""

import threading
import time

import structlog
from sqlalchemy.orm import Session, sessionmaker

from core.artifacts.store import open_store
from core.registry.orphans import sweep_orphans
from core.settings import Settings

SWEEP_SECONDS = 600.0

logger = structlog.get_logger()

_next_sweep = 0.0
_sweep: threading.Thread | None = None


def sweep_if_due(sessions: sessionmaker[Session], settings: Settings) -> None:
    """Start a sweep in a thread of its own, unless one runs or the last one began a short while ago."""
    global _next_sweep, _sweep
    if time.monotonic() < _next_sweep or (_sweep is not None and _sweep.is_alive()):
        return
    _next_sweep = time.monotonic() + SWEEP_SECONDS

    def sweep() -> None:
        try:
            removed = sweep_orphans(sessions, open_store(settings), settings)
            logger.info("store swept", removed=len(removed))
        except Exception as error:  # the database or the store is away: the next sweep comes
            logger.warning("sweep failed", error=str(error))

    _sweep = threading.Thread(target=sweep, name="sweep", daemon=True)
    _sweep.start()
