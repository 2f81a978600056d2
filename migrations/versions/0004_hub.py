"""What the hub's revisions hold.

Only additions: the version before runs on with this schema.
"""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
