"""Rows of a set of conversations that are not used, counted by reason."""

from alembic import op

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE datasets ADD COLUMN left_out jsonb")


def downgrade() -> None:
    op.execute("ALTER TABLE datasets DROP COLUMN left_out")
