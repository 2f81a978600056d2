"""Registry of removals: every sibling folder whose `info` describes one. Nothing lists them or loads torch."""

from core.discovery import descriptions
from core.engine import removals
from core.engine.cuts.removal import Removal

REMOVALS = descriptions(removals, Removal)  # type: ignore[type-abstract]
