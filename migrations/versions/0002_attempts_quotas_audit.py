"""Attempts as records, quotas and usage of teams, the audit trail, what workers have.

Only additions, but for the indexes of waiting jobs, which are others: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.add_column("teams", sa.Column("max_queued", sa.Integer()))
    op.add_column("teams", sa.Column("max_device_seconds", sa.Double()))
    op.add_column("teams", sa.Column("max_stored_bytes", sa.BigInteger()))
    op.add_column("teams", sa.Column("weight", sa.Double(), server_default=sa.text("1"), nullable=False))
    op.add_column("teams", sa.Column("device_seconds", sa.Double(), server_default=sa.text("0"), nullable=False))
    op.add_column("teams", sa.Column("device_month", sa.DateTime(timezone=True)))
    op.add_column("teams", sa.Column("stored_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.create_check_constraint(op.f("ck_teams_stored_bytes_not_negative"), "teams", "stored_bytes >= 0")
    op.create_check_constraint(op.f("ck_teams_weight_positive"), "teams", "weight > 0")
    op.execute(
        "UPDATE teams SET stored_bytes = stored.bytes FROM ("
        "SELECT team_id, sum(bytes) AS bytes FROM artifact_files JOIN jobs ON jobs.id = job_id GROUP BY team_id"
        ") AS stored WHERE stored.team_id = teams.id"
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String()),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object_id", sa.String(), nullable=False),
        sa.Column("details", _JSON, nullable=False),
        sa.Column("request_id", sa.String()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_audit_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_team_id_created_at_id"), "audit", ["team_id", "created_at", "id"])
    for column in ("action", "object_id"):
        op.create_index(
            op.f(f"ix_audit_team_id_{column}_created_at_id"), "audit", ["team_id", column, "created_at", "id"]
        )
    op.add_column("jobs", sa.Column("estimate", _JSON))
    op.add_column("jobs", sa.Column("request_id", sa.String()))
    op.add_column("jobs", sa.Column("traceparent", sa.String()))
    op.add_column("jobs", sa.Column("events_removed_at", sa.DateTime(timezone=True)))
    _index_waiting_jobs()
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("outcome", sa.String()),
        sa.Column("error_code", sa.String()),
        sa.Column("stages", _JSON),
        sa.Column("needs", _JSON),
        sa.Column("measured", _JSON),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_attempts_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_job_attempts_team_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_job_attempts")),
    )
    op.create_index(op.f("ix_job_attempts_team_id_started_at"), "job_attempts", ["team_id", "started_at"])
    op.create_index(
        "ix_job_attempts_history",
        "job_attempts",
        ["queue", "method", "ended_at"],
        postgresql_where=sa.text("outcome = 'succeeded'"),
    )
    op.add_column("workers", sa.Column("state", sa.String(), server_default="idle", nullable=False))
    op.add_column("workers", sa.Column("reason", sa.String()))
    op.add_column("workers", sa.Column("device_name", sa.String()))
    op.add_column("workers", sa.Column("device_memory_bytes", sa.BigInteger()))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger()))
    op.add_column("workers", sa.Column("disk_free_bytes", sa.BigInteger()))
    op.add_column("workers", sa.Column("version", sa.String()))


def _index_waiting_jobs() -> None:
    """Index waiting jobs by what each query takes first: claims step from team to team, hints from queue to queue."""
    order: list[str | sa.TextClause] = [sa.text("priority DESC"), "created_at", "id"]
    queued = sa.text("status = 'queued'")
    op.create_index("ix_jobs_waiting_by_team", "jobs", ["team_id", "queue", *order], postgresql_where=queued)
    op.create_index("ix_jobs_waiting_by_queue", "jobs", ["queue", *order], postgresql_where=queued)
    op.drop_index("ix_jobs_claim", table_name="jobs")
    op.drop_index("ix_jobs_waiting_team", table_name="jobs")
    op.create_index(
        "ix_jobs_events_kept",
        "jobs",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL AND events_removed_at IS NULL"),
    )
    # Claims read the front of these indexes, where entries die first: vacuum comes before they are many. Its default
    # waits for a fifth of the table, which never shrinks.
    op.execute("ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.01)")


def downgrade() -> None:
    op.execute("ALTER TABLE jobs RESET (autovacuum_vacuum_scale_factor)")
    queued = sa.text("status = 'queued'")
    op.create_index("ix_jobs_claim", "jobs", ["queue", "priority", "created_at", "id"], postgresql_where=queued)
    op.create_index("ix_jobs_waiting_team", "jobs", ["team_id", "queue"], postgresql_where=queued)
    for index in ("ix_jobs_events_kept", "ix_jobs_waiting_by_queue", "ix_jobs_waiting_by_team"):
        op.drop_index(index, table_name="jobs")
    for column in (
        "version",
        "disk_free_bytes",
        "memory_bytes",
        "device_memory_bytes",
        "device_name",
        "reason",
        "state",
    ):
        op.drop_column("workers", column)
    op.drop_table("job_attempts")
    for column in ("events_removed_at", "traceparent", "request_id", "estimate"):
        op.drop_column("jobs", column)
    op.drop_table("audit")
    op.drop_constraint(op.f("ck_teams_weight_positive"), "teams")
    op.drop_constraint(op.f("ck_teams_stored_bytes_not_negative"), "teams")
    for column in (
        "stored_bytes",
        "device_month",
        "device_seconds",
        "weight",
        "max_stored_bytes",
        "max_device_seconds",
        "max_queued",
    ):
        op.drop_column("teams", column)
