"""Records that attempts save to be resumed from, as tests read them."""

import json
from pathlib import Path
from typing import Any

from core.engine.resume.kinds import FOLDER, STATE, Kind


def positions(work: Path, kind: Kind) -> list[Path]:
    """Return the folders of an attempt's records, the oldest first."""
    return sorted((work / FOLDER / kind.name).glob("[0-9]*"))


def saved_state(work: Path, kind: Kind) -> dict[str, Any]:
    """Return the state of an attempt's newest record."""
    state: dict[str, Any] = json.loads((positions(work, kind)[-1] / STATE).read_text())["record"]["state"]
    return state
