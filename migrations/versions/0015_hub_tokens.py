"""Hub tokens of teams, what the hub's revisions hold by who may read it, and keys that were refused in the audit trail.

What was remembered of the hub is forgotten: it does not say with whose token it was read. The version before runs on
with this schema: what it remembers is read by nobody else.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hub_tokens",
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_hub_tokens_team_id_teams")),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_hub_tokens")),
    )
    op.alter_column("audit", "team_id", nullable=True)
    op.execute("DELETE FROM hub_revisions")
    op.add_column("hub_revisions", sa.Column("reader", sa.String(), server_default="", nullable=False))
    op.drop_constraint(op.f("pk_hub_revisions"), "hub_revisions")
    op.create_primary_key(op.f("pk_hub_revisions"), "hub_revisions", ["reader", "repository", "revision"])


def downgrade() -> None:
    """Remove the tokens; rows of the audit trail stay.

    Some of these may be no team's: the version before reads none of them.
    """
    op.execute("DELETE FROM hub_revisions")
    op.drop_constraint(op.f("pk_hub_revisions"), "hub_revisions")
    op.drop_column("hub_revisions", "reader")
    op.create_primary_key(op.f("pk_hub_revisions"), "hub_revisions", ["repository", "revision"])
    op.drop_table("hub_tokens")
