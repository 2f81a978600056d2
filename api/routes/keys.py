"""Routes of the team's API keys, for admins."""

from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import Admin, After, CreateOnce, DatabaseSession, Limit, State
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.teams import keys
from core.service.teams.schemas import KeyBody, RotateBody
from secateur_wire.base import Page
from secateur_wire.errors import Conflict, Forbidden, IdempotencyConflict, InvalidRequest, NotFound, Unauthenticated
from secateur_wire.teams import CreatedKey, Key

router = Router(prefix="/v1/keys", tags=["keys"])


@router.get("", responses=problems(Unauthenticated, Forbidden, InvalidRequest))
def list_keys(caller: Admin, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Key]:
    """List the team's keys, newest first, without their secrets."""
    return keys.list_keys(session, caller.team_id, limit=limit, after=after)


@router.post(
    "",
    status_code=201,
    response_model=CreatedKey,
    responses=problems(Unauthenticated, Forbidden, IdempotencyConflict, InvalidRequest),
)
def create_key(body: KeyBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """Create a key; only this answer has its secret, in `key`."""

    def create(session: Session) -> tuple[int, BaseModel]:
        created = keys.create_key(
            session, caller, role=body.role, name=body.name, expires_at=body.expires_at, secret=state.secret
        )
        return 201, created

    return once.answer(caller, body, create)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    response_model=CreatedKey,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict, IdempotencyConflict, InvalidRequest),
)
def rotate_key(key_id: str, body: RotateBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """Create a successor of a key, with its name and role; the old key stays valid for `grace_seconds`."""

    def create(session: Session) -> tuple[int, BaseModel]:
        return 201, keys.rotate_key(session, caller, key_id, grace_seconds=body.grace_seconds, secret=state.secret)

    return once.answer(caller, body, create)


@router.delete("/{key_id}", responses=problems(Unauthenticated, Forbidden, NotFound, Conflict))
def revoke_key(key_id: str, caller: Admin, session: DatabaseSession) -> Key:
    """Revoke a key permanently. Idempotent. The last admin key of a team cannot be revoked."""
    return keys.revoke_key(session, caller, key_id)
