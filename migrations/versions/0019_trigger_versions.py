"""Versions of triggers: each definition with who gave it.

Only an addition: the version before runs on with this schema. It writes no versions, so the first change after it
writes down what it finds as well.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trigger_versions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("trigger_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("definition", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["trigger_id"], ["triggers.id"], name=op.f("fk_trigger_versions_trigger_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trigger_versions")),
        sa.UniqueConstraint("trigger_id", "number", name=op.f("uq_trigger_versions_trigger_id_number")),
    )
    op.create_index(
        op.f("ix_trigger_versions_trigger_id_created_at_id"), "trigger_versions", ["trigger_id", "created_at", "id"]
    )


def downgrade() -> None:
    op.drop_table("trigger_versions")
