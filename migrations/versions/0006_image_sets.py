"""Image sets among the datasets.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("images", sa.BigInteger()))
    op.add_column("datasets", sa.Column("classes", sa.Integer()))
    for table in ("datasets", "uploads"):
        op.add_column(table, sa.Column("image_field", sa.String()))
        op.add_column(table, sa.Column("label_field", sa.String()))


def downgrade() -> None:
    for table in ("uploads", "datasets"):
        op.drop_column(table, "label_field")
        op.drop_column(table, "image_field")
    op.drop_column("datasets", "classes")
    op.drop_column("datasets", "images")
