"""Uploads, and models and texts that lie in the store.

Only additions: the version before runs on with this schema.
"""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
