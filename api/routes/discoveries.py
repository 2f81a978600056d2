"""Routes of discoveries of unlisted architectures."""

from typing import Annotated, Any, Final

from fastapi import Path
from starlette.responses import Response

from api.dependencies import DatabaseSession, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.service.discoveries.requests import get_discovery
from core.service.discoveries.states import OPEN
from secateur_wire.discoveries import Discovery
from secateur_wire.errors import NotFound, Unauthenticated

router = Router(prefix="/v1/discoveries", tags=["models"])

POLL_SECONDS = 2
"""Seconds after which a client should ask for a discovery again."""

LATER: Final[dict[str, Any]] = {
    "model": Discovery,
    "description": "What the model is has to be discovered first: ask again once this discovery is over",
    "headers": {
        "Location": {"description": "Path of the discovery.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds to wait before asking for it.", "schema": {"type": "integer"}},
    },
}
"""Answer of a call that has to wait for a discovery, for the OpenAPI document."""


@router.get("/{discovery_id}", responses=problems(Unauthenticated, NotFound))
def read_discovery(
    discovery_id: Annotated[str, Path(max_length=100)], caller: Viewer, session: DatabaseSession, response: Response
) -> Discovery:
    """Return a discovery by the id that inspecting its model gave.

    Discoveries that were unused for long are removed.
    """
    discovery = get_discovery(session, caller.team_id, discovery_id)
    if discovery.state in OPEN:
        response.headers["Retry-After"] = str(POLL_SECONDS)
    return discovery


def answer_later(discovery: Discovery) -> Response:
    """Return the answer of a call that has to wait for a discovery: 202, and the address of the discovery."""
    headers = {"Location": f"/v1/discoveries/{discovery.id}", "Retry-After": str(POLL_SECONDS)}
    return Response(discovery.model_dump_json(), 202, headers, media_type="application/json")
