"""Help: the API's calls, shown by Swagger UI from an installed package, so that no page needs the internet."""

from contextlib import suppress

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dependencies import State
from api.portal.rendering import page
from api.portal.session import COOKIE, session_of
from secateur_wire.errors import Unauthenticated

router = APIRouter()


@router.get("/help")
def help_page(request: Request, state: State) -> Response:
    """Show every call of the API. Nobody has to sign in; a page without a session has no navigation."""
    if COOKIE in request.cookies:
        with suppress(Unauthenticated):
            session_of(request, state)
    return page(request, "help.html")
