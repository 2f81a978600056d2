"""Routes of registered texts and image sets, for calibration and evaluation."""

from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from api.dependencies import Admin, After, CreateOnce, DatabaseSession, Limit, Member, State, Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.database import transaction
from core.service.registry import service
from core.service.registry.schemas import DatasetBody
from core.service.registry.tables import DatasetRow
from core.service.retention.deletion import delete_registered
from core.storage.removal import remove_prefixes
from secateur_wire.base import Page
from secateur_wire.datasets import Dataset
from secateur_wire.errors import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    PathEscapes,
    Unauthenticated,
    Unavailable,
    UnusableDataset,
)

router = Router(prefix="/v1/datasets", tags=["datasets"])


@router.get("", responses=problems(Unauthenticated, InvalidRequest))
def list_datasets(caller: Viewer, session: DatabaseSession, limit: Limit = 50, after: After = None) -> Page[Dataset]:
    """List the team's texts and image sets, newest first."""
    return service.list_datasets(session, caller.team_id, limit=limit, after=after)


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    responses=problems(
        Unauthenticated,
        Forbidden,
        Conflict,
        IdempotencyConflict,
        InvalidRequest,
        PathEscapes,
        UnusableDataset,
        Unavailable,
        besides={200: {"model": Dataset, "description": "The same has that name already"}},
    ),
)
def register_dataset(body: DatasetBody, caller: Admin, state: State, once: CreateOnce) -> Response:
    """Register a dataset from the server's disk.

    It is a text file (plain, JSONL or Parquet), or images as Parquet or as a folder with one folder per class. All of
    it is read once.
    """

    def read() -> dict[str, Any]:
        with state.check_slots.slot(caller.team_id):
            return service.read_dataset(body, state.settings)

    def create(session: Session, values: dict[str, Any]) -> tuple[int, BaseModel]:
        dataset, is_new = service.register_dataset(session, caller, values)
        return (201 if is_new else 200), dataset

    return once.answer_after(caller, body, read, create)


@router.get("/{name}", responses=problems(Unauthenticated, NotFound))
def get_dataset(name: str, caller: Viewer, session: DatabaseSession) -> Dataset:
    """Return a text or image set by name or id."""
    return service.dataset_answer(service.get_row(session, DatasetRow, caller.team_id, name))


@router.delete(
    "/{name}",
    status_code=204,
    response_model=None,
    responses=problems(Unauthenticated, Forbidden, NotFound, Conflict),
)
def delete_dataset(name: str, caller: Member, state: State) -> None:
    """Delete a dataset that no waiting or running job needs.

    Uploaded files are removed; a path of the server stays.
    """
    with transaction(state.sessions) as session:
        prefixes = delete_registered(session, caller, DatasetRow, name)
    remove_prefixes(state.store, prefixes)
