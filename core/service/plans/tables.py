"""Table of the tokens that texts use."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class TokenCountRow(Base):
    """Count of the tokens of a model's vocabulary that a text uses.

    `id` is a hash of the contents of the tokenizer's files and of the text. A worker counts at `due_at`; the row counts
    its tries. `counted` is the result, or `refusal` the reason why tokens cannot go from this tokenizer. `model` and
    `text` are the references of the first request, and `team_id` its team. `used_at` is updated about once a day.
    """

    __tablename__ = "token_counts"
    __table_args__ = (
        Index("ix_token_counts_due", "due_at", postgresql_where=sql("due_at IS NOT NULL")),
        Index(None, "used_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    model: Mapped[dict[str, Any]]
    vocabulary_size: Mapped[int]
    text: Mapped[dict[str, Any]]
    counted: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    refusal: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default=sql("0"))
    due_at: Mapped[datetime | None]
    used_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
