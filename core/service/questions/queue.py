"""Queue of questions: asked where the answer is not known, taken by a worker under a lease, answered or put off."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now, seconds_from_statement
from core.service.questions.tables import QuestionRow

Question = TypeVar("Question", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel)

MOST_ATTEMPTS: Final = 3
_AGAIN_SECONDS: Final = 600.0
"""A question that failed is tried again after this time: the cause may have been the machine, or a file it lacks."""
_NOTED_AGAIN: Final = timedelta(days=1)
"""Time after which it is noted once more that an answer is in use."""
_KEEP_DAYS: Final = 90.0
_MOST_DUE: Final = 200
"""Questions of a kind that are due at once; others are dropped, and asked again by the next request."""
_BATCH: Final = 200


@dataclass(frozen=True)
class QuestionKind(Generic[Question, Answer]):
    """Kind of question: its name, and the types of its questions and answers."""

    name: str
    question: type[Question]
    answer: type[Answer]


@dataclass(frozen=True)
class ClaimedQuestion(Generic[Question]):
    """Question that a worker has taken; `attempt` goes with every later write."""

    id: str
    attempt: int
    team_id: str
    question: Question


def known_answer(
    session: Session, kind: QuestionKind[Question, Answer], team_id: str, question_id: str, question: Question
) -> Answer | None:
    """Return the answer to a question; None where there is none yet, or where all attempts failed.

    The first request asks the question.
    """
    row = session.get(QuestionRow, question_id)
    if row is None:
        ask(session, kind, team_id, question_id, question)
        return None
    if row.used_at < datetime.now(UTC) - _NOTED_AGAIN:
        session.execute(
            update(QuestionRow)
            .where(QuestionRow.id == question_id)
            .values(used_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
    return kept_answer(session, kind, question_id)


def kept_answer(session: Session, kind: QuestionKind[Question, Answer], question_id: str) -> Answer | None:
    """Return the answer to a question that was asked before; None where there is none."""
    row = session.get(QuestionRow, question_id)
    return None if row is None or row.answer is None else kind.answer.model_validate(row.answer)


def ask(
    session: Session, kind: QuestionKind[Question, Answer], team_id: str, question_id: str, question: Question
) -> None:
    """Have a worker answer a question, unless it was asked before or too many are due."""
    due = select(func.count()).where(QuestionRow.kind == kind.name, QuestionRow.due_at.is_not(None))
    if (session.scalar(due) or 0) < _MOST_DUE:
        row = insert(QuestionRow).values(
            id=question_id,
            kind=kind.name,
            team_id=team_id,
            question=question.model_dump(mode="json"),
            due_at=func.clock_timestamp(),
        )
        session.execute(row.on_conflict_do_nothing())


def claim(
    session: Session, kind: QuestionKind[Question, Answer], *, lease_seconds: float
) -> ClaimedQuestion[Question] | None:
    """Take the question of a kind that has been due longest; None where none is due.

    It is due again after the lease, unless it is answered by then. A question that cannot be read, because another
    release asked it, is never due again.
    """
    row = session.scalars(
        select(QuestionRow)
        .where(QuestionRow.kind == kind.name, QuestionRow.due_at <= func.clock_timestamp())
        .order_by(QuestionRow.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    try:
        question = kind.question.model_validate(row.question)
    except ValidationError:
        row.due_at = None
        return None
    row.attempts, row.due_at = row.attempts + 1, _due_after(row.attempts + 1, lease_seconds)
    return ClaimedQuestion(row.id, row.attempts, row.team_id, question)


def keep(session: Session, claimed: ClaimedQuestion[Any], answer: BaseModel) -> None:
    """Store the answer to a question."""
    _write(session, claimed, answer=answer.model_dump(mode="json"), due_at=None)


def put_off(session: Session, claimed: ClaimedQuestion[Any]) -> None:
    """Postpone a question that failed; after the last attempt it is never due again."""
    _write(session, claimed, due_at=_due_after(claimed.attempt, _AGAIN_SECONDS))


def release(session: Session, claimed: ClaimedQuestion[Any]) -> None:
    """Return a question to the queue. This attempt does not count."""
    _write(session, claimed, due_at=func.clock_timestamp(), attempts=claimed.attempt - 1)


def forget_unused(session: Session) -> int:
    """Remove a batch of questions whose answers were not used for long; return their number."""
    old = select(QuestionRow.id).where(QuestionRow.used_at < seconds_from_statement(-_KEEP_DAYS * 86400))
    removed = session.scalars(
        delete(QuestionRow)
        .where(QuestionRow.id.in_(old.limit(_BATCH).with_for_update(skip_locked=True)))
        .returning(QuestionRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(removed.all())


def _write(session: Session, claimed: ClaimedQuestion[Any], **values: object) -> None:
    session.execute(
        update(QuestionRow)
        .where(QuestionRow.id == claimed.id, QuestionRow.attempts == claimed.attempt)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _due_after(attempt: int, seconds: float) -> ColumnElement[datetime] | None:
    return seconds_from_now(seconds) if attempt < MOST_ATTEMPTS else None
