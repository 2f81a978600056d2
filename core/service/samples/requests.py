"""Requests for the samples, as a team makes and reads them."""

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id
from core.service.samples.tables import REQUEST_IS_OPEN, SampleRequestRow
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from secateur_wire.errors import NotFound
from secateur_wire.samples import SampleBody, SampleRequest


def request_samples(session: Session, caller: Actor, body: SampleBody) -> tuple[SampleRequest, bool]:
    """Request the samples; return False if the team has an unfinished request for any goal."""
    created = session.scalar(
        insert(SampleRequestRow)
        .values(id=new_id("sample"), team_id=team_of(caller), goal=body.goal)
        .on_conflict_do_nothing(index_elements=["team_id"], index_where=text(REQUEST_IS_OPEN))
        .returning(SampleRequestRow.id)
    )
    if created is not None:
        audit.note(session, caller, "sample.request", created, {} if body.goal is None else {"goal": body.goal})
    newest = latest_request(session, team_of(caller))
    assert newest is not None
    return newest, created is not None


def latest_request(session: Session, team_id: str) -> SampleRequest | None:
    """Return the team's newest request; None where it has none."""
    row = session.scalar(
        select(SampleRequestRow)
        .where(SampleRequestRow.team_id == team_id)
        .order_by(SampleRequestRow.created_at.desc(), SampleRequestRow.id.desc())
        .limit(1)
    )
    return None if row is None else SampleRequest.model_validate(row, from_attributes=True)


def get_request(session: Session, team_id: str, request_id: str) -> SampleRequest:
    """Return a request of the team; raises NotFound."""
    row = session.scalar(
        select(SampleRequestRow).where(SampleRequestRow.id == request_id, SampleRequestRow.team_id == team_id)
    )
    if row is None:
        raise NotFound(f"there is no request {request_id!r} for the samples")
    return SampleRequest.model_validate(row, from_attributes=True)
