"""Table of questions to workers."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class QuestionRow(Base):
    """A question of a kind. `id` is a hash of the contents that the answer follows from.

    A worker answers at `due_at`; the row counts its tries. `team_id` is the team that asked first, with whose access to
    the hub the worker reads. `used_at` is updated about once a day.
    """

    __tablename__ = "questions"
    __table_args__ = (
        Index("ix_questions_due", "kind", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index(None, "used_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    question: Mapped[dict[str, Any]]
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[datetime | None]
    used_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
