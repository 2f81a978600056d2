"""Tables of retention: the policies of teams, and when artifacts were last read."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class RetentionPolicyRow(Base):
    """Policy of a team, a `RetentionPolicy`. A team without a row keeps everything."""

    __tablename__ = "retention_policies"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    policy: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ArtifactReadRow(Base):
    """Time of the last request for a file of a job's artifact, to the minute."""

    __tablename__ = "artifact_reads"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    read_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
