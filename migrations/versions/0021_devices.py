"""Devices of workers: which of its host's each has, and the driver's facts of it.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("device_id", sa.String()))
    op.add_column("workers", sa.Column("device_utilisation", sa.Double()))
    op.add_column("workers", sa.Column("device_celsius", sa.Integer()))
    op.add_column("workers", sa.Column("device_uncorrected_errors", sa.BigInteger()))


def downgrade() -> None:
    for name in ("uncorrected_errors", "celsius", "utilisation", "id"):
        op.drop_column("workers", f"device_{name}")
