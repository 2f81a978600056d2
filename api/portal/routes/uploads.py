"""Routes for static/upload.js: the calls of /v1/uploads for a signed-in caller."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import DatabaseSession, State
from api.http.upload_parts import NextPart, take_part
from api.portal.forms.upload import abort
from api.portal.session import Member, SignedInRoute
from core.database import transaction
from core.service.registry import uploads
from core.service.registry.schemas import UploadBody
from core.service.registry.upload_completion import complete_upload
from secateur_wire.datasets import Dataset
from secateur_wire.models import Model
from secateur_wire.uploads import Upload

router = APIRouter(prefix="/uploads", route_class=SignedInRoute)


@router.post("")
def start_upload(body: UploadBody, caller: Member, session: DatabaseSession, state: State) -> Upload:
    """Start an upload; a repeated announcement continues an open one."""
    return uploads.start_upload(session, caller, body, state.settings)[0]


@router.put("/{upload_id}/files/{path}")
async def send_part(
    request: Request,
    upload_id: str,
    path: str,
    caller: Member,
    state: State,
    offset: Annotated[int, Query(ge=0, le=2**53)],
) -> Response:
    return await take_part(request, state, caller, NextPart(upload_id, path, offset))


@router.post("/{upload_id}/complete")
def complete(upload_id: str, caller: Member, state: State) -> Model | Dataset:
    return complete_upload(state.sessions, state.store, caller, upload_id, state.settings, state.check_slots)[0]


@router.post("/{upload_id}/abort")
def give_up(upload_id: str, caller: Member, state: State) -> Response:
    """Abort an upload: the button of the lists."""
    with transaction(state.sessions) as session:
        kind = uploads.get_upload(session, caller.team_id, upload_id).kind
    abort(state, caller, upload_id)
    return RedirectResponse(f"/portal/{kind}s", 303)
