"""Removal of what no row names any more, after the commit that took its row away."""

from collections.abc import Sequence

import structlog

from core.storage.store import Store
from secateur_wire.errors import Unavailable

logger = structlog.get_logger()


def remove_prefixes(store: Store, prefixes: Sequence[str]) -> None:
    """Remove what no row names any more. Where the store is away, the sweep of orphans does it later."""
    for prefix in prefixes:
        try:
            store.delete(prefix)
        except (Unavailable, OSError) as error:
            logger.warning("not removed from the store yet", prefix=prefix, error=str(error))
