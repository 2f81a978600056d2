"""Totals of ended attempts, for metrics; what of a device's memory is used.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("device_memory_used_bytes", sa.BigInteger()))
    op.add_column("job_attempts", sa.Column("counted", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_index(
        "ix_job_attempts_to_count",
        "job_attempts",
        ["ended_at"],
        postgresql_where=sa.text("ended_at IS NOT NULL AND NOT counted"),
    )
    op.create_table(
        "attempt_totals",
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "method", "outcome", "error_code", name=op.f("pk_attempt_totals")),
    )
    op.create_table(
        "stage_totals",
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("at_most", sa.Double(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("stage", "outcome", "at_most", name=op.f("pk_stage_totals")),
    )


def downgrade() -> None:
    op.drop_table("stage_totals")
    op.drop_table("attempt_totals")
    op.drop_index("ix_job_attempts_to_count", "job_attempts")
    op.drop_column("job_attempts", "counted")
    op.drop_column("workers", "device_memory_used_bytes")
