"""Counts of the tokens that a text uses: a worker's secluded child counts them, and plans state what could go.

Nobody waits for a count: until it is there, a plan says so. A count is kept by the contents of the tokenizer's files
and of the text, so that the next plan for the same has it, of whatever team.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now, seconds_from_statement
from core.engine.checkpoints.companions import TEMPLATE_FOLDER
from core.pipeline.messages import CountedTokens
from core.service.plans.tables import TokenCountRow
from core.service.sources.references import FileReference, FileText, FolderModel, ModelReference, StoredText
from secateur_wire.errors import UnusableModel

MOST_ATTEMPTS: Final = 3
_VERSION: Final = 1
"""Version of the choice of tokens: counts of an earlier one are made again."""
_AGAIN_SECONDS: Final = 600.0
"""A count that failed is tried again after this long: it may have been the machine, or a file it has not."""
_NOTED_AGAIN: Final = timedelta(days=1)
_KEEP_DAYS: Final = 90.0
_MOST_DUE: Final = 200
_BATCH: Final = 200
_MOST_FILE_BYTES: Final = 128 * 2**20
_SUFFIXES: Final = (".json", ".jinja")

RegisteredText = FileText | StoredText
_texts: TypeAdapter[RegisteredText] = TypeAdapter(RegisteredText)
_models: TypeAdapter[ModelReference] = TypeAdapter(ModelReference)


@dataclass(frozen=True)
class ClaimedCount:
    """Count that a worker has taken: of a model, whose team may ask the hub for it, and of a text."""

    id: str
    attempt: int
    team_id: str
    model: ModelReference
    vocabulary_size: int
    text: RegisteredText


def count_id(model: ModelReference, vocabulary_size: int, text: RegisteredText) -> str:
    """Return the id of the count of a text's tokens: it follows from the contents alone."""
    content = json.dumps([_VERSION, vocabulary_size, _content_of_tokenizer(model), _content_of_text(text)])
    return hashlib.sha256(content.encode()).hexdigest()


def known_count(
    session: Session, team_id: str, model: ModelReference, vocabulary_size: int, text: RegisteredText
) -> CountedTokens | None:
    """Return the tokens that a text uses; None where they are yet to be counted, or could not be.

    The first to ask has them counted. Raises UnusableModel where no tokens can go from this tokenizer, with the reason.
    """
    row_id = count_id(model, vocabulary_size, text)
    row = session.get(TokenCountRow, row_id)
    if row is None:
        due = select(func.count()).select_from(TokenCountRow).where(TokenCountRow.due_at.is_not(None))
        if (session.scalar(due) or 0) < _MOST_DUE:
            request = insert(TokenCountRow).values(
                id=row_id,
                team_id=team_id,
                model=model.model_dump(mode="json"),
                vocabulary_size=vocabulary_size,
                text=text.model_dump(mode="json"),
                due_at=func.clock_timestamp(),
            )
            session.execute(request.on_conflict_do_nothing())
        return None
    if row.used_at < datetime.now(UTC) - _NOTED_AGAIN:
        session.execute(
            update(TokenCountRow)
            .where(TokenCountRow.id == row_id)
            .values(used_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
    if row.refusal is not None:
        raise UnusableModel(row.refusal, param="model")
    return None if row.counted is None else CountedTokens.model_validate(row.counted)


def claim_count(session: Session, *, lease_seconds: float) -> ClaimedCount | None:
    """Take the count that is due longest; None where none is.

    It is due again after the lease, unless the result is there by then.
    """
    row = session.scalars(
        select(TokenCountRow)
        .where(TokenCountRow.due_at <= func.clock_timestamp())
        .order_by(TokenCountRow.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    try:
        model, text = _models.validate_python(row.model), _texts.validate_python(row.text)
    except ValidationError:
        row.due_at = None  # another release's
        return None
    row.attempts, row.due_at = row.attempts + 1, _due_after(row.attempts + 1, lease_seconds)
    return ClaimedCount(row.id, row.attempts, row.team_id, model, row.vocabulary_size, text)


def keep_count(session: Session, claimed: ClaimedCount, counted: CountedTokens) -> None:
    """Write what was counted."""
    _write(session, claimed, counted=counted.model_dump(mode="json"), due_at=None)


def keep_refusal(session: Session, claimed: ClaimedCount, reason: str) -> None:
    """Write why no tokens can go from a tokenizer."""
    _write(session, claimed, refusal=reason, due_at=None)


def put_off_count(session: Session, claimed: ClaimedCount) -> None:
    """Let a count that failed be due again later, or never after the last attempt."""
    _write(session, claimed, due_at=_due_after(claimed.attempt, _AGAIN_SECONDS))


def release_count(session: Session, claimed: ClaimedCount) -> None:
    """Give a count back unharmed: the attempt does not count."""
    _write(session, claimed, due_at=func.clock_timestamp(), attempts=claimed.attempt - 1)


def forget_unused_counts(session: Session) -> int:
    """Remove a batch of counts that no plan used for long; return of how many."""
    old = select(TokenCountRow.id).where(TokenCountRow.used_at < seconds_from_statement(-_KEEP_DAYS * 86400))
    removed = session.scalars(
        delete(TokenCountRow)
        .where(TokenCountRow.id.in_(old.limit(_BATCH).with_for_update(skip_locked=True)))
        .returning(TokenCountRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def naming_files(files: Iterable[FileReference]) -> list[FileReference]:
    """Return the files of a model that name tokens: tokenizer, configs and chat templates, without weights."""
    return [
        file
        for file in files
        if file.path.endswith(_SUFFIXES)
        and PurePosixPath(file.path).parent.as_posix() in (".", TEMPLATE_FOLDER)
        and file.bytes <= _MOST_FILE_BYTES
    ]


def _content_of_tokenizer(model: ModelReference) -> object:
    if isinstance(model, FolderModel):
        return model.revision
    return sorted([file.path, file.sha256 or file.git_blob or model.revision] for file in naming_files(model.files))


def _content_of_text(text: RegisteredText) -> object:
    content = text.sha256 if isinstance(text, FileText) else text.file.sha256
    return [content, text.format, text.text_field]


def _write(session: Session, claimed: ClaimedCount, **values: object) -> None:
    session.execute(
        update(TokenCountRow)
        .where(TokenCountRow.id == claimed.id, TokenCountRow.attempts == claimed.attempt)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _due_after(attempt: int, seconds: float) -> ColumnElement[datetime] | None:
    return seconds_from_now(seconds) if attempt < MOST_ATTEMPTS else None
