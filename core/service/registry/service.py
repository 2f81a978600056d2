"""Service of a team's models and datasets: register, list and find."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, bindparam, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer

from core.database import new_id
from core.engine.architectures.description import (
    MODEL_TASKS,
    UNDISCOVERED,
    Source,
    UndiscoveredFacts,
    UndiscoveredModel,
    stored_description,
)
from core.engine.architectures.sandboxed import Slot, describe_sandboxed
from core.engine.datasets.formats import IMAGE_FORMATS, detect_format
from core.engine.datasets.image_facts import ImagesDescription, describe_images
from core.engine.datasets.text_files import describe
from core.pagination import Listing, read_page
from core.service.discoveries.requests import ask_if_possible, known_facts
from core.service.registry.provenance import check_statement
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.tables import DatasetRow, ModelRow
from core.service.registry.traces import ask_for_trace
from core.service.sources.folders import allowed_path, content_digests, content_hash_of, dataset_hash
from core.service.teams import audit
from core.service.teams.principal import Actor, team_of
from core.settings import Settings
from secateur_wire.base import Page
from secateur_wire.datasets import Dataset
from secateur_wire.errors import Conflict, NotFound, SecateurError
from secateur_wire.models import Model
from secateur_wire.provenance import PROVENANCE

Problem = TypeVar("Problem", bound=SecateurError)
Row = TypeVar("Row", ModelRow, DatasetRow)


@dataclass(frozen=True)
class ReadModel:
    """Model folder that was read and hashed, which may take minutes; `statement` is its file of provenance."""

    body: ModelBody
    folder: Path
    description: Source
    digests: Mapping[str, str]
    statement: bytes | None
    settings: Settings


def read_model(body: ModelBody, settings: Settings, slot: Slot = nullcontext) -> ReadModel:
    """Read and hash a model folder, before the transaction that registers it begins; a child reads it in a `slot`.

    Raises PathEscapes, the UnusableModel kinds and UnsupportedArchitecture.
    """
    folder = allowed_path(settings, body.path)
    try:
        description = describe_sandboxed(folder, slot)
    except SecateurError as error:
        raise about(error, "path") from error
    digests = content_digests(folder)
    statement = (folder / PROVENANCE).read_bytes() if PROVENANCE in digests else None
    return ReadModel(body, folder, description, digests, statement, settings)


def register_model(session: Session, caller: Actor, read: ReadModel) -> tuple[Model, bool]:
    """Register a model folder; return True if it is new, False if the same content has that name already.

    A model with an unlisted architecture is registered too, and its discovery is requested.

    Raises Conflict where the name belongs to another model.
    """
    body, description = read.body, read.description
    provenance = check_statement(session, team_of(caller), read.statement, read.digests, read.settings)
    row, is_new = add_model(
        session,
        caller,
        {
            "id": new_id("model"),
            "name": body.name,
            "path": str(read.folder),
            "source": body.source,
            "revision": content_hash_of(read.digests),
            "description": stored_description(description),
            "provenance": None if provenance is None else provenance.model_dump(mode="json"),
        },
    )
    if isinstance(description, UndiscoveredModel):
        ask_if_possible(session, caller, description, read.settings)
    return model_answer(session, row), is_new


def read_dataset(body: DatasetBody, settings: Settings) -> dict[str, Any]:
    """Read a text or images before the transaction that registers them begins; return the values of their row.

    Raises PathEscapes and UnusableDataset.
    """
    place = allowed_path(settings, body.path)
    format_name = body.format or detect_format(place)
    values = {"id": new_id("dataset"), "name": body.name, "path": str(place), "source": body.source}
    if format_name in IMAGE_FORMATS:
        fields = (body.image_field, body.label_field)
        described = describe_images(place, format_name, *fields, sha256=dataset_hash(place))
        facts = image_facts(described, format_name, *fields)
    else:
        text = describe(place, format_name, body.text_field)
        facts = {"format": format_name, "text_field": body.text_field, **text.model_dump()}
    return values | facts


def register_dataset(session: Session, caller: Actor, read: dict[str, Any]) -> tuple[Dataset, bool]:
    """Register a text or images; return True if they are new, False if the same content has that name already.

    Raises Conflict where the name belongs to other content.
    """
    row, is_new = add_dataset(session, caller, read)
    return dataset_answer(row), is_new


def image_facts(described: ImagesDescription, format_name: str, image_field: str, label_field: str) -> dict[str, Any]:
    """Return the column values of an image set."""
    return {
        "format": format_name,
        "text_field": "text",
        "image_field": image_field,
        "label_field": label_field,
        "documents": 0,
        "characters": 0,
        **described.model_dump(include={"images", "classes", "bytes", "sha256"}),
    }


def add_model(session: Session, caller: Actor, values: dict[str, Any]) -> tuple[ModelRow, bool]:
    """Give a model its name, unless it has it already; ask for its trace where models of its task are traced.

    Raises Conflict where the name belongs to another model.
    """
    row, is_new = _add(session, ModelRow, caller, values)
    require_same_model(row, values["revision"])
    task = MODEL_TASKS.get(values["description"]["task"])
    if is_new and task is not None and task.is_traced:
        ask_for_trace(session, row)
    return row, is_new


def add_dataset(session: Session, caller: Actor, values: dict[str, Any]) -> tuple[DatasetRow, bool]:
    """Give a text or image set its name, unless it has it already. Raises Conflict for a name with other content."""
    row, is_new = _add(session, DatasetRow, caller, values)
    require_same_dataset(row, values["sha256"], {name: values.get(name) for name in READING})
    return row, is_new


def _add(session: Session, table: type[Row], caller: Actor, values: dict[str, Any]) -> tuple[Row, bool]:
    team_id = team_of(caller)
    created = session.scalar(
        insert(table)
        .values(team_id=team_id, **values)
        .on_conflict_do_nothing(index_elements=["team_id", "name"])
        .returning(table.id)
    )
    row = find_row(session, table, team_id, values["name"])
    if row is None:
        raise Conflict(f"the name {values['name']!r} is being deleted: try again", param="name")
    if created is not None:
        audit.note(session, caller, f"{noun(table)}.register", row.id, {"name": row.name, "source": row.source})
    return row, created is not None


def require_same_model(row: ModelRow, revision: str) -> None:
    if row.revision != revision:
        raise Conflict(f"the name {row.name!r} is taken by another model ({row.revision})", param="name")


READING = ("format", "text_field", "image_field", "label_field")
"""Columns that say how a dataset is read; together with its hash they identify it."""


def require_same_dataset(row: DatasetRow, sha256: str, reading: Mapping[str, str | None]) -> None:
    if row.sha256 != sha256 or any(getattr(row, name) != reading[name] for name in READING):
        raise Conflict(f"the name {row.name!r} is taken by another dataset (sha256 {row.sha256})", param="name")


def noun(table: type[ModelRow] | type[DatasetRow]) -> str:
    return table.__tablename__.removesuffix("s")


def find_row(session: Session, table: type[Row], team_id: str, name: str) -> Row | None:
    """Return the row of a name, locked so that it cannot be deleted before this transaction ends."""
    row: Row | None = session.scalar(_locked_by_name(table), {"team_id": team_id, "name": name})
    return row


@cache
def _locked_by_name(table: type[Row]) -> Select[Row]:
    """Return the statement of `find_row`. It is cached, because every submit runs it several times."""
    query = select(table).where(table.team_id == bindparam("team_id"), table.name == bindparam("name"))
    return query.with_for_update(read=True, key_share=True)


def names(session: Session, table: type[Row], team_id: str, *conditions: ColumnElement[bool]) -> list[str]:
    """Return the newest names for a message, at most 20, of the rows that match all conditions in `which`."""
    newest = select(table.name).where(table.team_id == team_id, *conditions).order_by(table.created_at.desc()).limit(20)
    return sorted(session.scalars(newest))


def get_row(session: Session, table: type[Row], team_id: str, name: str, *, for_deletion: bool = False) -> Row:
    """Return the row of a name or an id; raises NotFound."""
    query = select(table).where(table.team_id == team_id, (table.name == name) | (table.id == name))
    row = session.scalar(query.with_for_update() if for_deletion else query)
    if row is None:
        raise NotFound(f"there is no {noun(table)} {name!r}")
    return row


def list_models(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Model]:
    query = select(ModelRow).where(ModelRow.team_id == team_id).options(defer(ModelRow.files))
    return read_page(session, Listing(query, ModelRow, partial(model_answer, session)), limit=limit, after=after)


def list_datasets(session: Session, team_id: str, *, limit: int, after: str | None) -> Page[Dataset]:
    query = select(DatasetRow).where(DatasetRow.team_id == team_id)
    return read_page(session, Listing(query, DatasetRow, dataset_answer), limit=limit, after=after)


def model_answer(session: Session, row: ModelRow) -> Model:
    """Return the model as the API shows it: the facts from its headers, until the rest is discovered."""
    facts: Mapping[str, Any] = row.facts
    discovery = None
    if facts.get("task") == UNDISCOVERED:
        known, discovery = known_facts(session, UndiscoveredFacts.model_validate(facts))
        facts = {**known, "task": "language-model"}
    described = {name: value for name, value in facts.items() if name in Model.model_fields}
    return Model.model_validate(
        described
        | {
            "id": row.id,
            "name": row.name,
            "source": row.source,
            "revision": row.revision,
            "created_at": row.created_at,
            "discovery": discovery,
            "provenance": row.provenance,
        },
        extra="ignore",
    )


def dataset_answer(row: DatasetRow) -> Dataset:
    shown = {name: getattr(row, name) for name in Dataset.model_fields if name != "object"}
    return Dataset.model_validate(shown)


def about(error: Problem, param: str) -> Problem:
    """Return the same error with another `param`."""
    error.param = param
    return error
