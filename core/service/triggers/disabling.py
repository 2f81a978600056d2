"""End of a trigger's schedule by the service itself, with a reason that its team sees."""

from sqlalchemy.orm import Session

from core.service.teams import audit
from core.service.teams.principal import Automation
from core.service.triggers import versions
from core.service.triggers.definitions import definition_of
from core.service.triggers.schemas import TriggerBody
from core.service.triggers.tables import TriggerRow


def disable(session: Session, row: TriggerRow, reason: str) -> None:
    """Disable a trigger that is locked."""
    before = _definition(row)
    row.enabled = False
    row.next_fire_at = None
    row.disabled_reason = reason
    session.flush()
    actor = Automation(row.team_id, f"trigger:{row.id}")
    if before is not None:
        versions.record(session, actor, row)
    audit.note(session, actor, "trigger.disable", row.id, {"name": row.name, "reason": reason})


def _definition(row: TriggerRow) -> TriggerBody | None:
    """Return the definition; None where an earlier release accepted what this one does not."""
    try:
        return definition_of(row)
    except ValueError:
        return None
