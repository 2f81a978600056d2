"""Tables of retention: the teams' policies, the artifacts, and the times when artifacts were last read."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base


class RetentionPolicyRow(Base):
    """Policy of a team, a `RetentionPolicy`. A team without a row keeps everything."""

    __tablename__ = "retention_policies"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    policy: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ArtifactRow(Base):
    """Stored artifact of an ended job, with the facts that the rules of a policy use. Code only reads this table.

    Triggers of the database write a row when a job's files or end change, and remove it while a job is retried. `files`
    and `bytes` are totals over all attempts.
    """

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_by_end", "team_id", "finished_at", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    model: Mapped[str]
    method: Mapped[str]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    finished_at: Mapped[datetime]
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)


class ArtifactReadRow(Base):
    """Time of the last request for a file of a job's artifact, to the minute."""

    __tablename__ = "artifact_reads"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    read_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
