"""Route that completes shortened identifiers."""

from typing import Annotated

from fastapi import Query

from api.dependencies import DatabaseSession, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service import identifiers as service
from secateur_wire.base import Page
from secateur_wire.errors import InvalidRequest, NotFound, Unauthenticated
from secateur_wire.identifiers import Identifier, IdentifierKind

router = Router(prefix="/v1/identifiers", tags=["team"])


@router.get("", responses=problems(Unauthenticated, NotFound, InvalidRequest))
def list_identifiers(
    caller: Viewer,
    session: DatabaseSession,
    kind: IdentifierKind,
    shortened: Annotated[
        str,
        Query(max_length=100, description="How the id begins, or `-`: the job that the caller's key submitted last."),
    ],
    limit: Annotated[int, Query(ge=1, le=200, description="Items in the list.")] = service.CANDIDATES,
) -> Page[Identifier]:
    """List the identifiers that a shortened one may stand for, newest first.

    There is a single one if it is unique. Identifiers of keys are listed only for admins.
    """
    return service.identifiers(session, caller, kind, shortened, limit=limit)
