"""The table of what was found on the hub."""

from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class HubRevisionRow(Base):
    """A model repository at one commit, which never changes: a cache, any row of which may be removed.

    `description` is a `ModelDescription`, `files` the files to fetch by path.
    """

    __tablename__ = "hub_revisions"

    repository: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[str] = mapped_column(primary_key=True)
    description: Mapped[dict[str, Any]]
    files: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
