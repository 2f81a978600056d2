"""Which of its host's devices a worker has. Only additions: the version before runs on with this schema."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("device_id", sa.String()))


def downgrade() -> None:
    op.drop_column("workers", "device_id")
