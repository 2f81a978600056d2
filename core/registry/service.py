"""Registering, listing and finding models and datasets of a team."""

from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.catalogue.model_folder import inspect_folder
from core.data.texts import describe, detect_format
from core.database import new_id
from core.errors import Conflict, NotFound, SecateurError
from core.pages import Page, read_page
from core.registry.folders import allowed_path, content_hash
from core.registry.schemas import Dataset, DatasetBody, Model, ModelBody
from core.registry.tables import DatasetRow, ModelRow
from core.settings import Settings

Problem = TypeVar("Problem", bound=SecateurError)


def register_model(session: Session, team_id: str, body: ModelBody, settings: Settings) -> tuple[Model, bool]:
    """Register a model folder; True where it is new, False where the same content has that name already.

    Raises PathEscapes and the UnusableModel kinds, UnsupportedArchitecture, and Conflict where the name means another
    model.
    """
    folder = allowed_path(settings, body.path)
    try:
        description = inspect_folder(folder)
    except SecateurError as error:
        raise _about(error, "path") from error
    row = ModelRow(
        id=new_id("model"),
        team_id=team_id,
        name=body.name,
        path=str(folder),
        source=body.source,
        revision=content_hash(folder),
        description=description.model_dump(mode="json"),
    )
    values = {
        name: getattr(row, name) for name in ("id", "team_id", "name", "path", "source", "revision", "description")
    }
    created = session.scalar(
        insert(ModelRow)
        .values(values)
        .on_conflict_do_nothing(index_elements=["team_id", "name"])
        .returning(ModelRow.id)
    )
    stored = find_model_row(session, team_id, body.name)
    assert stored is not None
    if stored.revision != row.revision:
        raise Conflict(f"the name {body.name!r} is taken by another model ({stored.revision})", param="name")
    return model_answer(stored), created is not None


def register_dataset(session: Session, team_id: str, body: DatasetBody, settings: Settings) -> tuple[Dataset, bool]:
    """Register a text file; True where it is new, False where the same text has that name already.

    Raises PathEscapes, UnusableDataset, and Conflict where the name means another text.
    """
    file = allowed_path(settings, body.path)
    format_name = body.format or detect_format(file)
    description = describe(file, format_name, body.text_field)
    created = session.scalar(
        insert(DatasetRow)
        .values(
            id=new_id("dataset"),
            team_id=team_id,
            name=body.name,
            path=str(file),
            format=format_name,
            text_field=body.text_field,
            source=body.source,
            **description.model_dump(),
        )
        .on_conflict_do_nothing(index_elements=["team_id", "name"])
        .returning(DatasetRow.id)
    )
    stored = find_dataset_row(session, team_id, body.name)
    assert stored is not None
    if (stored.sha256, stored.format, stored.text_field) != (description.sha256, format_name, body.text_field):
        raise Conflict(f"the name {body.name!r} is taken by another text (sha256 {stored.sha256})", param="name")
    return dataset_answer(stored), created is not None


def find_model_row(session: Session, team_id: str, name: str) -> ModelRow | None:
    return session.scalar(select(ModelRow).where(ModelRow.team_id == team_id, ModelRow.name == name))


def find_dataset_row(session: Session, team_id: str, name: str) -> DatasetRow | None:
    return session.scalar(select(DatasetRow).where(DatasetRow.team_id == team_id, DatasetRow.name == name))


def model_names(session: Session, team_id: str) -> list[str]:
    """For messages: the newest names, at most 20."""
    newest = select(ModelRow.name).where(ModelRow.team_id == team_id).order_by(ModelRow.created_at.desc()).limit(20)
    return sorted(session.scalars(newest))


def dataset_names(session: Session, team_id: str) -> list[str]:
    """For messages: the newest names, at most 20."""
    newest = (
        select(DatasetRow.name).where(DatasetRow.team_id == team_id).order_by(DatasetRow.created_at.desc()).limit(20)
    )
    return sorted(session.scalars(newest))


def get_model(session: Session, team_id: str, name: str) -> Model:
    """A model by name or id; raises NotFound."""
    row = session.scalar(
        select(ModelRow).where(ModelRow.team_id == team_id, (ModelRow.name == name) | (ModelRow.id == name))
    )
    if row is None:
        raise NotFound(f"there is no model {name!r}")
    return model_answer(row)


def get_dataset(session: Session, team_id: str, name: str) -> Dataset:
    """A dataset by name or id; raises NotFound."""
    row = session.scalar(
        select(DatasetRow).where(DatasetRow.team_id == team_id, (DatasetRow.name == name) | (DatasetRow.id == name))
    )
    if row is None:
        raise NotFound(f"there is no dataset {name!r}")
    return dataset_answer(row)


def list_models(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Model]:
    query = select(ModelRow).where(ModelRow.team_id == team_id)
    return read_page(session, query, ModelRow, limit=limit, after=after, answer=model_answer)


def list_datasets(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Dataset]:
    query = select(DatasetRow).where(DatasetRow.team_id == team_id)
    return read_page(session, query, DatasetRow, limit=limit, after=after, answer=dataset_answer)


def model_answer(row: ModelRow) -> Model:
    described = {name: value for name, value in row.description.items() if name in Model.model_fields}
    return Model.model_validate(
        described
        | {
            "id": row.id,
            "object": "model",
            "name": row.name,
            "source": row.source,
            "revision": row.revision,
            "created_at": row.created_at,
        }
    )


def dataset_answer(row: DatasetRow) -> Dataset:
    shown = {name: getattr(row, name) for name in Dataset.model_fields if name != "object"}
    return Dataset.model_validate(shown | {"object": "dataset"})


def _about(error: Problem, param: str) -> Problem:
    error.param = param
    return error
