"""Work folders of workers; the room that jobs need, and the memory that they have outgrown; who completes an upload.

The version before runs on with this schema: jobs it submits have no needs, which every worker has room for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_QUEUED = sa.text("status = 'queued'")
_ORDER = (sa.text("priority DESC"), "created_at", "id")
_BYTES = (
    "needs_device_memory_bytes",
    "needs_memory_bytes",
    "needs_disk_bytes",
    "outgrown_device_memory_bytes",
    "outgrown_memory_bytes",
)


def upgrade() -> None:
    op.add_column("uploads", sa.Column("completing_by", sa.String()))
    op.add_column("workers", sa.Column("work_folders", sa.Integer()))
    op.add_column("workers", sa.Column("work_bytes", sa.BigInteger()))
    for name in _BYTES:
        op.add_column("jobs", sa.Column(name, sa.BigInteger()))
    op.add_column("jobs", sa.Column("size", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("jobs", sa.Column("is_corrected", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_index("ix_jobs_waiting_by_team", table_name="jobs")
    op.create_index("ix_jobs_waiting_by_team", "jobs", ["team_id", "queue", "size", *_ORDER], postgresql_where=_QUEUED)
    op.create_index(
        "ix_jobs_uncorrected",
        "jobs",
        ["queue", "method"],
        postgresql_where=sa.text("status = 'queued' AND NOT is_corrected"),
    )
    op.drop_index("ix_job_attempts_history", table_name="job_attempts")
    op.create_index(
        "ix_job_attempts_history",
        "job_attempts",
        ["queue", "method", "ended_at"],
        postgresql_where=sa.text("measured IS NOT NULL"),
    )
    op.create_table(
        "peak_ratios",
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("device_memory", sa.Double()),
        sa.Column("memory", sa.Double()),
        sa.Column("disk", sa.Double()),
        sa.PrimaryKeyConstraint("queue", "method", name=op.f("pk_peak_ratios")),
    )


def downgrade() -> None:
    op.drop_table("peak_ratios")
    op.drop_index("ix_job_attempts_history", table_name="job_attempts")
    op.create_index(
        "ix_job_attempts_history",
        "job_attempts",
        ["queue", "method", "ended_at"],
        postgresql_where=sa.text("outcome = 'succeeded'"),
    )
    op.drop_index("ix_jobs_uncorrected", table_name="jobs")
    op.drop_index("ix_jobs_waiting_by_team", table_name="jobs")
    op.create_index("ix_jobs_waiting_by_team", "jobs", ["team_id", "queue", *_ORDER], postgresql_where=_QUEUED)
    op.drop_column("jobs", "is_corrected")
    op.drop_column("jobs", "size")
    for name in reversed(_BYTES):
        op.drop_column("jobs", name)
    op.drop_column("workers", "work_bytes")
    op.drop_column("workers", "work_folders")
    op.drop_column("uploads", "completing_by")
