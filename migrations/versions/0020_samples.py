"""Requests for the samples, which workers fetch. Only additions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "sample_requests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="waiting", nullable=False),
        sa.Column("goal", sa.String(), nullable=True),
        sa.Column("step", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'running', 'ready', 'failed')", name=op.f("ck_sample_requests_state")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_sample_requests_lease_while_running")
        ),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_sample_requests_error_if_failed")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_sample_requests_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sample_requests")),
    )
    op.create_index(
        "ix_sample_requests_open",
        "sample_requests",
        ["team_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.create_index(op.f("ix_sample_requests_team_id_created_at"), "sample_requests", ["team_id", "created_at"])


def downgrade() -> None:
    op.drop_table("sample_requests")
