"""Tables of registered models and datasets."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class ModelRow(Base):
    """A model folder. `revision` is its content hash, `description` a `ModelDescription`."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("team_id", "name"), Index(None, "team_id", "created_at", "id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    path: Mapped[str]
    source: Mapped[str]
    revision: Mapped[str]
    description: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class DatasetRow(Base):
    """A text file. `sha256` is of the file."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("team_id", "name"), Index(None, "team_id", "created_at", "id"))

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    name: Mapped[str]
    path: Mapped[str]
    format: Mapped[str]
    text_field: Mapped[str]
    source: Mapped[str]
    documents: Mapped[int] = mapped_column(BigInteger)
    characters: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
