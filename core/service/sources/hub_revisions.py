"""Cache in the database of the hub's models at their commits; its size is bounded, and any row may be removed."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now, seconds_from_statement
from core.engine.architectures.description import sources
from core.service.sources.hub_models import HubRevision
from core.service.sources.hub_tables import HubRevisionRow
from core.service.sources.references import FileReference

PUBLIC: Final = "public"
"""Reader of revisions that are public."""
MOST_OF_TEAM: Final = 1000
"""Maximum number of cached revisions of one team: the most recently used ones stay."""
_USED_SECONDS: Final = 3600.0
"""A use is recorded at most this often."""
_BATCH: Final = 500

_KEY = (HubRevisionRow.reader, HubRevisionRow.repository, HubRevisionRow.revision)


def find_revision(session: Session, reader: str, repository: str, commit: str) -> HubRevision | None:
    """Return the cached facts of a model at a commit, and record the use."""
    row = session.get(HubRevisionRow, (reader, repository, commit))
    if row is None:
        return None
    session.execute(
        update(HubRevisionRow)
        .where(tuple_(*_KEY) == (reader, repository, commit), HubRevisionRow.used_at < seconds_from_now(-_USED_SECONDS))
        .values(used_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )
    return HubRevision(
        repository=row.repository,
        revision=row.revision,
        description=sources.validate_python(row.description),
        files=tuple(FileReference(path=path, **facts) for path, facts in row.files.items()),
        is_public=row.reader == PUBLIC,
    )


def remember_revision(
    session: Session, reader: str, model: HubRevision, team_id: str, *, most: int = MOST_OF_TEAM
) -> None:
    """Cache a model that a team asked for; above `most` of the team's rows, the least recently used are removed."""
    session.execute(insert(HubRevisionRow).values(_values(reader, model, team_id)).on_conflict_do_nothing())
    beyond = select(*_KEY).where(HubRevisionRow.team_id == team_id).order_by(HubRevisionRow.used_at.desc()).offset(most)
    _remove(session, beyond.limit(_BATCH))


def forget_unused_revisions(session: Session, keep_days: float) -> int:
    """Remove a batch of the revisions that were unused for so many days; return their number."""
    unused = select(*_KEY).where(HubRevisionRow.used_at < seconds_from_statement(-keep_days * 24 * 3600))
    return _remove(session, unused.order_by(HubRevisionRow.used_at).limit(_BATCH))


def _remove(session: Session, query: Any) -> int:
    picked = query.with_for_update(skip_locked=True).cte("picked")
    removed = session.scalars(
        delete(HubRevisionRow)
        .where(tuple_(*_KEY).in_(select(picked.c.reader, picked.c.repository, picked.c.revision)))
        .returning(HubRevisionRow.reader)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _values(reader: str, model: HubRevision, team_id: str) -> Mapping[str, object]:
    return {
        "reader": reader,
        "repository": model.repository,
        "revision": model.revision,
        "description": model.description.model_dump(mode="json"),
        "files": {file.path: file.model_dump(mode="json", exclude={"path"}) for file in model.files},
        "team_id": team_id,
    }
