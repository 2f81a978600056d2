"""Sweeps and their points.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default="running", nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_revision", sa.String(), nullable=False),
        sa.Column("max_concurrent", sa.Integer(), nullable=False),
        sa.Column("request", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("skipped", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("baseline", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("waiting_for", sa.String(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('running', 'succeeded', 'failed', 'cancelled')", name="ck_sweeps_status"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_sweeps_team_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_list", "sweeps", ["team_id", "created_at", "id"])
    op.create_index("ix_sweeps_running", "sweeps", ["id"], postgresql_where=sa.text("status = 'running'"))
    op.create_table(
        "sweep_points",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(), server_default="full", nullable=False),
        sa.Column("point_values", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("body", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("pattern", sa.String(), nullable=False),
        sa.Column("measures", sa.String(), nullable=True),
        sa.Column("verifies", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("again", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("error", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.CheckConstraint("stage IN ('full', 'probe')", name="ck_sweep_points_stage"),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_sweep_points_sweep_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_sweep_points_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_sweep_points"),
    )
    op.create_index("ix_sweep_points_job_id", "sweep_points", ["job_id"], unique=True)


def downgrade() -> None:
    op.drop_table("sweep_points")
    op.drop_table("sweeps")
