"""Tables of jobs, their events, reports and artifact files, of workers, and of stored answers."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    ScalarSelect,
    String,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, aliased, defer, mapped_column, query_expression, with_expression

from core.database import Base, any_of
from core.service.jobs.states import LEASED, NOT_OVER, STATUSES

NEWEST_FIRST = (text("created_at DESC"), text("id DESC"))
JOB_WORDS = (
    "array_to_tsvector(array_append(array_remove(string_to_array(regexp_replace("
    "lower((((((id::text || ' ') || model::text) || ' ') || method::text) || ' ')"
    " || jsonb_path_query_array(metadata, '$.*')::text), "
    r"'\\(u[0-9a-f]{4}|.)|[\u0001-\u002f\u003a-\u0040\u005b\u005d-\u0060\u007b-\u007f]+', ' ', 'g'"
    "), ' '), ''), '_' || team_id::text))"
)
"""Searchable words of a job, as `ix_jobs_words` indexes them. They are the words of its id, model, method and metadata
values, in small letters. Every ASCII character that is not a letter or digit separates words, and so do JSON's escapes.
The team is one more word after an underscore, which no other word has. PostgreSQL's text parsers are not used: they
would take some words for paths, numbers or hosts. The expression is written as PostgreSQL writes it, so that schema and
code can be compared."""
JOB_IS_LEASED = f"status IN ({any_of(LEASED)})"
"""Condition of the index of jobs with a lease. PostgreSQL uses the index only for exactly this text, without
parameters."""
JOB_AWAITS = "status = 'queued' AND awaits_discovery IS NOT NULL"
"""Condition of the index of jobs whose model is yet to be discovered."""
JOB_TEACHER = "((body -> 'recovery'::text) ->> 'teacher'::text)"
JOB_LEARNS = f"status IN ({any_of(NOT_OVER)}) AND {JOB_TEACHER} IS NOT NULL"
"""Condition of the index of jobs that need a teacher, the model from which their recovery learns."""
JOB_EXPORTS = "status = 'succeeded' AND metrics ? 'exports'"
"""Condition of the index of jobs that may have written an additional form of their model."""
JOB_IN_LIFE = f"array_position(ARRAY[{any_of(STATUSES)}], CAST(status AS text))"
"""Rank of a state in a job's life: waiting and running jobs come before ended jobs."""


class JobRow(Base):
    """A job: the queue of record.

    `attempt` fences every write of a worker; `last_event` numbers events; `attempts_allowed` is the attempt after which
    a retryable failure is final. `body` is the request with defaults filled in, `sources` what it resolved to: paths
    and hashes of the model and the texts. `metrics` are of the attempt that its artifact is of. `dispatched_at` is when
    a hint was last sent, `events_removed_at` when retention removed its events. The needs come from the estimate, and
    `size` is the same in steps; `is_corrected` once measurements of jobs of the queue and method have corrected them
    (`PeakRatioRow`). A job that ran out of memory has outgrown the memory of that worker: it needs a larger one. While
    it `awaits_discovery`, the facts of its model are unknown: `body` is the request as it came, `sources` name the
    model alone, and no worker takes it. `short_body` is read with `SHORT_ROW` alone. No index has
    `lease_expires_at`: renewing a lease touches the row alone.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({any_of(STATUSES)})", name="status"),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        CheckConstraint(f"(status IN ({any_of(LEASED)})) = (lease_expires_at IS NOT NULL)", name="lease_while_held"),
        Index(
            "ix_jobs_waiting_by_team",
            "team_id",
            "queue",
            "size",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_waiting_by_queue",
            "queue",
            text("priority DESC"),
            "created_at",
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index(
            "ix_jobs_uncorrected",
            "queue",
            "method",
            postgresql_where=text("status = 'queued' AND NOT is_corrected"),
        ),
        Index("ix_jobs_awaiting", "awaits_discovery", postgresql_where=text(JOB_AWAITS)),
        Index("ix_jobs_teachers", "team_id", text(JOB_TEACHER), postgresql_where=text(JOB_LEARNS)),
        Index("ix_jobs_held", "team_id", "id", postgresql_where=text(JOB_IS_LEASED)),
        Index(
            "ix_jobs_events_kept",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND events_removed_at IS NULL"),
        ),
        Index("ix_jobs_list", "team_id", "created_at", "id"),
        Index("ix_jobs_list_by_status", "team_id", "status", "created_at", "id"),
        Index("ix_jobs_list_by_model", "team_id", "model", *NEWEST_FIRST),
        Index("ix_jobs_list_by_method", "team_id", "method", *NEWEST_FIRST),
        Index("ix_jobs_list_by_life", "team_id", text(JOB_IN_LIFE), *NEWEST_FIRST),
        Index("ix_jobs_list_by_end", "team_id", text("finished_at DESC NULLS LAST"), *NEWEST_FIRST),
        Index("ix_jobs_exports", "team_id", text("created_at DESC"), postgresql_where=text(JOB_EXPORTS)),
        Index("ix_jobs_words", text(JOB_WORDS), postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        Index("ix_jobs_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    status: Mapped[str] = mapped_column(server_default="queued")
    stage: Mapped[str | None]
    progress: Mapped[float] = mapped_column(Double, server_default=text("0"))
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    attempts_allowed: Mapped[int]
    last_event: Mapped[int] = mapped_column(server_default=text("0"))

    body: Mapped[dict[str, Any]]
    short_body: Mapped[dict[str, Any] | None] = query_expression()
    sources: Mapped[dict[str, Any]]
    model: Mapped[str]
    model_revision: Mapped[str]
    method: Mapped[str]
    queue: Mapped[str]
    priority: Mapped[int]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")

    error: Mapped[dict[str, Any] | None]
    metrics: Mapped[dict[str, Any] | None]

    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    available_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    dispatched_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    worker_id: Mapped[str | None]
    events_removed_at: Mapped[datetime | None]
    estimate: Mapped[dict[str, Any] | None]
    needs_device_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    needs_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    needs_disk_bytes: Mapped[int | None] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(server_default=text("0"))
    is_corrected: Mapped[bool] = mapped_column(server_default=text("false"))
    outgrown_device_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    outgrown_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    awaits_discovery: Mapped[str | None]
    request_id: Mapped[str | None]
    traceparent: Mapped[str | None]


_SHORT_BODY_BYTES = 8192
_LONG_FIELDS = ("vocabulary.keep", "parameters.keep", "evaluation.prompts", "recovery.lora.targets")
_SHORT_BODY = (
    "CASE WHEN octet_length(jobs.body::text) > {bytes} THEN jobs.body {removed} || '{{\"left_out\": [{names}]}}' "
    "ELSE jobs.body END"
).format(
    bytes=_SHORT_BODY_BYTES,
    removed=" ".join(f"#- '{{{name.replace('.', ',')}}}'" for name in _LONG_FIELDS),
    names=", ".join(f'"{name}"' for name in _LONG_FIELDS),
)
SHORT_ROW = (
    defer(JobRow.body),
    defer(JobRow.sources),
    with_expression(JobRow.short_body, literal_column(_SHORT_BODY, JSONB)),
)
"""Options of a query that reads many jobs: long bodies come without the fields that may be long, which `left_out` then
names, and without sources."""


class AttemptRow(Base):
    """One attempt at a job. Quotas, estimates and metrics read these rows.

    `outcome` is null while it runs, then succeeded, failed, cancelled, released or lost. `stages` holds seconds by
    stage. `needs` are the estimated needs of the job and `measured` the measured use, under the same names. `counted`
    is true once the attempt is part of the totals.
    """

    __tablename__ = "job_attempts"
    __table_args__ = (
        PrimaryKeyConstraint("job_id", "attempt"),
        Index(None, "team_id", "started_at"),
        Index("ix_job_attempts_history", "queue", "method", "ended_at", postgresql_where=text("measured IS NOT NULL")),
        Index("ix_job_attempts_to_count", "ended_at", postgresql_where=text("ended_at IS NOT NULL AND NOT counted")),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    queue: Mapped[str]
    method: Mapped[str]
    worker_id: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error_code: Mapped[str | None]
    stages: Mapped[dict[str, Any] | None]
    needs: Mapped[dict[str, Any] | None]
    measured: Mapped[dict[str, Any] | None]
    counted: Mapped[bool] = mapped_column(server_default=text("false"))


class PeakRatioRow(Base):
    """Median of measured ÷ formula over the newest complete jobs of a queue and method.

    A row exists only where there are enough of them. A figure is null where it was not measured.
    """

    __tablename__ = "peak_ratios"
    __table_args__ = (PrimaryKeyConstraint("queue", "method"),)

    queue: Mapped[str]
    method: Mapped[str]
    device_memory: Mapped[float | None] = mapped_column(Double)
    memory: Mapped[float | None] = mapped_column(Double)
    disk: Mapped[float | None] = mapped_column(Double)


class JobEventRow(Base):
    """One event. Its number is taken from the job's locked row, so events become visible in order."""

    __tablename__ = "job_events"
    __table_args__ = (PrimaryKeyConstraint("job_id", "sequence"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    sequence: Mapped[int]
    type: Mapped[str]
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class JobReportRow(Base):
    """Report of an attempt.

    The attempt of the newest report also gives the job its metrics and artifact (`kept_attempt`).
    """

    __tablename__ = "job_reports"
    __table_args__ = (PrimaryKeyConstraint("job_id", "attempt"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    report: Mapped[dict[str, Any]]


class ArtifactFileRow(Base):
    """One file of one attempt's artifact."""

    __tablename__ = "artifact_files"
    __table_args__ = (PrimaryKeyConstraint("job_id", "attempt", "path"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    path: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]


def kept_attempt() -> ScalarSelect[int | None]:
    """Return the attempt of the report, metrics and artifact of the enclosing query's `JobRow`; null without one.

    It may be older than the newest attempt, which may still run, or have ended without a report.
    """
    reports = aliased(JobReportRow)  # The enclosing query may use this table too.
    return select(func.max(reports.attempt)).where(reports.job_id == JobRow.id).correlate(JobRow).scalar_subquery()


class IdempotencyKeyRow(Base):
    """The first answer to a creating request, encrypted with the key that the client sent.

    Only a hash of that key is stored.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (PrimaryKeyConstraint("team_id", "key_hash"), Index(None, "expires_at"))

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"))
    key_hash: Mapped[bytes]
    request_hash: Mapped[bytes]
    answer: Mapped[bytes | None]
    expires_at: Mapped[datetime]


class WorkerRow(Base):
    """A worker, its resources, and its last heartbeat.

    `state` is idle, busy, paused (its disk is nearly full: it claims nothing) or draining. `reason` is set where the
    worker drains on its own because its device failed. `device_id` is its device among those of the node, where each
    device has a worker. Memory and disk are those of the whole machine or control group (`memory_bytes`); where each
    device has a worker, they are divided among the workers. Device memory is null without a device, and includes the
    use by other processes at the last heartbeat. `work_folders` and `work_bytes` count the jobs with a folder on that
    disk, of any worker of the node. The device's load, and its memory errors since the driver was loaded, are reported
    by the driver. `runtimes` are the installed programs that run files of exporters. `operations_per_second` is the
    speed of the worker's device in matrix products, measured when the worker began; None where it was not measured.
    """

    __tablename__ = "workers"
    __table_args__ = (Index(None, "heartbeat_at"), Index(None, "queue"))

    id: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    device: Mapped[str]
    hostname: Mapped[str]
    pid: Mapped[int]
    job_id: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default="idle")
    reason: Mapped[str | None]
    device_id: Mapped[str | None]
    device_name: Mapped[str | None]
    device_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    device_memory_used_bytes: Mapped[int | None] = mapped_column(BigInteger)
    device_utilisation: Mapped[float | None] = mapped_column(Double)
    device_celsius: Mapped[int | None]
    device_uncorrected_errors: Mapped[int | None] = mapped_column(BigInteger)
    runtimes: Mapped[list[str] | None] = mapped_column(ARRAY(String))
    operations_per_second: Mapped[float | None] = mapped_column(Double)
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    disk_free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    work_folders: Mapped[int | None]
    work_bytes: Mapped[int | None] = mapped_column(BigInteger)
    version: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @property
    def device_has_failed(self) -> bool:
        """Return whether the worker drains because its device failed."""
        return self.state == "draining" and self.reason is not None
