"""Registry of recoveries: every folder beside it whose `info` describes one. None is listed, and no torch is loaded."""

from collections.abc import Callable

from core.discovery import descriptions
from core.engine import recovery
from core.engine.recovery.recovery_info import RecoveryInfo

RECOVERIES = descriptions(recovery, RecoveryInfo)


def recoveries_where(fits: Callable[[RecoveryInfo], bool]) -> list[str]:
    """Return the ids of the recoveries that fit."""
    return [each.id for each in RECOVERIES.values() if fits(each)]
