"""Removal of files that no row names any more, after the commit that removed the row."""

from collections.abc import Sequence

import structlog

from core.storage.store import Store
from secateur_wire.errors import Unavailable

logger = structlog.get_logger()


def remove_prefixes(store: Store, prefixes: Sequence[str]) -> None:
    """Remove files that no row names any more; if the store is away, the sweep of orphans removes them later."""
    for prefix in prefixes:
        try:
            store.delete(prefix)
        except (Unavailable, OSError) as error:
            logger.warning("not removed from the store yet", prefix=prefix, error=str(error))
