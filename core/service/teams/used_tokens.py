"""Ids of tokens that count once, such as those of pipelines and of sign-outs at the provider."""

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.teams.tables import UsedTokenRow

_REMOVED_AT_ONCE = 1000
"""Expired ids of tokens that one token removes."""


def use_once(session: Session, issuer: str, token_id: str, *, seconds: float) -> bool:
    """Record the id (`jti`) of a token that is valid for so many seconds more; return whether it is the first time."""
    past = (
        select(UsedTokenRow.issuer, UsedTokenRow.token_id)
        .where(UsedTokenRow.expires_at <= func.statement_timestamp())
        .limit(_REMOVED_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("past")
    )
    is_past = (UsedTokenRow.issuer == past.c.issuer, UsedTokenRow.token_id == past.c.token_id)
    session.execute(delete(UsedTokenRow).where(*is_past).execution_options(synchronize_session=False))
    new = insert(UsedTokenRow).values(issuer=issuer, token_id=token_id, expires_at=seconds_from_now(seconds))
    added = session.execute(new.on_conflict_do_nothing().returning(UsedTokenRow.token_id)).one_or_none()
    return added is not None
