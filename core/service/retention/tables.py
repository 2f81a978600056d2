"""Tables of retention: the teams' policies, the artifacts, and the times when artifacts were last read."""

from datetime import datetime
from typing import Any, get_args

from sqlalchemy import BigInteger, Double, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from core.database import Base
from secateur_wire.retention import Figure, Group

_NEWEST_FIRST = (text("finished_at DESC"), "job_id")


class RetentionPolicyRow(Base):
    """Policy of a team, a `RetentionPolicy`. A team without a row keeps everything."""

    __tablename__ = "retention_policies"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True)
    policy: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ArtifactRow(Base):
    """Stored artifact of an ended job, with the figures that the rules of a policy use. Code only reads this table.

    Triggers of the database write a row when a job's files, end or metrics change, and remove it while a job is
    retried. `files` and `bytes` are totals over all attempts. `perplexity_ratio` is the mean over the evaluation sets,
    `parameters` the number of nonzero ones, `latency` the pruned model's in milliseconds. A figure that was not
    measured is null. Each figure has an index for each kind of group, so that the best are found without reading all
    others.
    """

    __tablename__ = "artifacts"
    __table_args__ = (
        Index("ix_artifacts_by_end", "team_id", "finished_at", "job_id"),
        *(
            Index(
                f"ix_artifacts_best_{figure}_of_{group}",
                "team_id",
                *(() if group == "team" else (group,)),
                figure,
                *_NEWEST_FIRST,
                postgresql_where=text(f"succeeded AND {figure} IS NOT NULL"),
            )
            for figure in get_args(Figure)
            for group in get_args(Group)
        ),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    model: Mapped[str]
    method: Mapped[str]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    finished_at: Mapped[datetime]
    succeeded: Mapped[bool]
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    perplexity_ratio: Mapped[float | None] = mapped_column(Double)
    parameters: Mapped[float | None] = mapped_column(Double)
    latency: Mapped[float | None] = mapped_column(Double)


class ArtifactReadRow(Base):
    """Time of the last request for a file of a job's artifact, to the minute."""

    __tablename__ = "artifact_reads"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    read_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
