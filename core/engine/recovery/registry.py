"""Registry of recoveries: every sibling folder whose `info` describes one. Nothing lists them or loads torch."""

from collections.abc import Callable

from core.discovery import descriptions
from core.engine import recovery
from core.engine.recovery.recovery_info import RecoveryInfo

RECOVERIES = descriptions(recovery, RecoveryInfo)


def recoveries_where(fits: Callable[[RecoveryInfo], bool]) -> list[str]:
    """Return the ids of the recoveries for which `fits` is true."""
    return [each.id for each in RECOVERIES.values() if fits(each)]
