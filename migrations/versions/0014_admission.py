"""What work folders hold on each worker.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("work_folders", sa.Integer()))
    op.add_column("workers", sa.Column("work_bytes", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("workers", "work_bytes")
    op.drop_column("workers", "work_folders")
