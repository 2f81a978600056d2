"""Attempts as records, quotas and usage of teams, the audit trail, what workers have.

Only additions: the version before runs on with this schema.
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
    op.create_index(op.f("ix_audit_team_id_object_id"), "audit", ["team_id", "object_id"])
    op.add_column("jobs", sa.Column("estimate", _JSON))
    op.add_column("jobs", sa.Column("request_id", sa.String()))
    op.add_column("jobs", sa.Column("traceparent", sa.String()))
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
        ["queue", "ended_at"],
        postgresql_where=sa.text("outcome = 'succeeded'"),
    )
    op.add_column("workers", sa.Column("state", sa.String(), server_default="idle", nullable=False))
    op.add_column("workers", sa.Column("reason", sa.String()))
    op.add_column("workers", sa.Column("device_name", sa.String()))
    op.add_column("workers", sa.Column("device_memory_bytes", sa.BigInteger()))
    op.add_column("workers", sa.Column("memory_bytes", sa.BigInteger()))
    op.add_column("workers", sa.Column("disk_free_bytes", sa.BigInteger()))
    op.add_column("workers", sa.Column("version", sa.String()))


def downgrade() -> None:
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
    for column in ("traceparent", "request_id", "estimate"):
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
