"""Registry of removals: every folder beside it whose `info` describes one. None is listed, and no torch is loaded."""

from core.discovery import descriptions
from core.engine import removals
from core.engine.cuts.removal import Removal

REMOVALS = descriptions(removals, Removal)  # type: ignore[type-abstract]
