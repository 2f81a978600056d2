"""Pages of the team's texts and image sets."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from api.dependencies import After, DatabaseSession, State
from api.portal.rendering import page
from api.portal.routes.adding import uploads_to_show
from api.portal.session import Member, Viewer, Visit
from core.database import transaction
from core.service.registry import service
from core.service.registry.tables import DatasetRow
from core.service.retention.deletion import delete_registered
from core.storage.removal import remove_prefixes
from secateur_wire.errors import Conflict

router = APIRouter(prefix="/datasets")

_PAGE = 25


@router.get("")
def list_datasets(request: Request, caller: Viewer, session: DatabaseSession, after: After = None) -> Response:
    context = {
        "datasets": service.list_datasets(session, caller.team_id, limit=_PAGE, after=after),
        "uploads": uploads_to_show(session, caller, "dataset"),
        "after": after,
    }
    return page(request, "registry/datasets.html", context)


@router.get("/{name}")
def show_dataset(request: Request, name: str, caller: Viewer, session: DatabaseSession) -> Response:
    return _dataset_page(Visit(request, session, caller), name)


@router.post("/{name}/delete")
def delete_dataset(request: Request, name: str, caller: Member, state: State) -> Response:
    """Delete a dataset; if a job needs it, the page shows this at the button."""
    try:
        with transaction(state.sessions) as session:
            prefixes = delete_registered(session, caller, DatasetRow, name)
    except Conflict as error:
        with transaction(state.sessions) as session:
            return _dataset_page(Visit(request, session, caller), name, refused=error)
    remove_prefixes(state.store, prefixes)
    return RedirectResponse("/portal/datasets", 303)


def _dataset_page(visit: Visit, name: str, refused: Conflict | None = None) -> Response:
    row = service.get_row(visit.session, DatasetRow, visit.caller.team_id, name)
    status = 200 if refused is None else refused.status
    context = {"dataset": service.dataset_answer(row), "refused": refused}
    return page(visit.request, "registry/dataset.html", context, status=status)
