"""Administration of teams by the server's operator: create, set quotas. No API key may do this."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.service.teams import audit
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.service.teams.tables import TeamRow
from secateur_wire.errors import Conflict, InvalidRequest, NotFound
from secateur_wire.teams import CreatedKey

SETTABLE = ("max_running", "max_queued", "max_device_seconds", "max_stored_bytes", "weight")
_NAME = re.compile(r"[^\s\x00-\x1f](.{0,98}[^\s\x00-\x1f])?")


def create_team_with_key(
    session: Session, name: str, limits: Mapping[str, float | None], *, secret: bytes
) -> CreatedKey:
    """Create a team with these quotas; return its first admin key.

    Raises InvalidRequest, Conflict where the name is taken.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest("a team's name has 1 to 100 characters, on one line", param="name")
    if session.scalar(select(TeamRow.id).where(TeamRow.name == name)) is not None:
        raise Conflict(f"there is a team {name!r} already")
    team_id = create_team(session, name)
    audit.note(session, team_id, "team.create", team_id, {"name": name})
    set_limits(session, name, limits)
    return create_key(session, team_id, role="admin", name="first", expires_at=None, secret=secret)


def set_limits(session: Session, name: str, limits: Mapping[str, float | None]) -> str:
    """Set some of SETTABLE (null: no limit) and return the team's id. Raises NotFound, InvalidRequest."""
    row = session.scalar(select(TeamRow).where(TeamRow.name == name).with_for_update(key_share=True))
    if row is None:
        raise NotFound(f"there is no team {name!r}")
    changes: dict[str, list[Any]] = {}
    for limit, value in limits.items():
        assert limit in SETTABLE, limit
        _check(limit, value)
        before = getattr(row, limit)
        if before != value:
            setattr(row, limit, value)
            changes[limit] = [before, value]
    session.flush()
    if changes:
        audit.note(session, row.id, "team.set", row.id, changes)
    return row.id


def _check(limit: str, value: float | None) -> None:
    if limit == "weight":
        if value is None or not 0 < value <= 1000:
            raise InvalidRequest("a weight is a number above 0, at most 1000; the usual one is 1", param=limit)
    elif value is not None and not 0 <= value < 2**53:
        raise InvalidRequest(f"{limit} must be a number from 0 up, or none", param=limit)
    elif limit in ("max_running", "max_queued") and value is not None and value >= 2**31:
        raise InvalidRequest(f"{limit} is below 2³¹, or none", param=limit)


def team_named(session: Session, name: str) -> str:
    """Return the id of the team with this name. Raises NotFound."""
    team_id = session.scalar(select(TeamRow.id).where(TeamRow.name == name))
    if team_id is None:
        raise NotFound(f"there is no team {name!r}")
    return team_id
