"""Traces of image classifiers: when one is due, and how often it was tried. Those that are there are due.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("trace_due_at", sa.DateTime(timezone=True)))
    op.add_column("models", sa.Column("trace_attempts", sa.Integer(), server_default="0", nullable=False))
    op.execute("UPDATE models SET trace_due_at = now() WHERE description ->> 'task' = 'image-classification'")
    op.create_index(
        "ix_models_trace_due", "models", ["trace_due_at"], postgresql_where=sa.text("trace_due_at IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_models_trace_due", table_name="models")
    op.drop_column("models", "trace_attempts")
    op.drop_column("models", "trace_due_at")
