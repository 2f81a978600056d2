"""Rows of the dispatcher's duties that fail; the last use of what is remembered of the hub, and by which team.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "row_failures",
        sa.Column("duty", sa.String(), nullable=False),
        sa.Column("row_id", sa.String(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("duty", "row_id", name=op.f("pk_row_failures")),
    )
    op.create_table(
        "row_failure_totals",
        sa.Column("duty", sa.String(), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("parked", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("duty", name=op.f("pk_row_failure_totals")),
    )
    op.add_column("hub_revisions", sa.Column("team_id", sa.String()))
    op.add_column(
        "hub_revisions",
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )
    op.create_index("ix_hub_revisions_used_at", "hub_revisions", ["used_at"])
    op.create_index("ix_hub_revisions_team_id_used_at", "hub_revisions", ["team_id", "used_at"])


def downgrade() -> None:
    op.drop_index("ix_hub_revisions_team_id_used_at", table_name="hub_revisions")
    op.drop_index("ix_hub_revisions_used_at", table_name="hub_revisions")
    op.drop_column("hub_revisions", "used_at")
    op.drop_column("hub_revisions", "team_id")
    op.drop_table("row_failure_totals")
    op.drop_table("row_failures")
