"""Triggers and the history of their firings.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "triggers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), server_default=sa.text("''"), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("disabled_reason", sa.String(), nullable=True),
        sa.Column("template", postgresql.JSONB(), nullable=False),
        sa.Column("placeholders", postgresql.JSONB(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=True),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("signing_secret", sa.LargeBinary(), nullable=True),
        sa.Column("hub", postgresql.JSONB(), nullable=True),
        sa.Column("hub_digest", sa.LargeBinary(), nullable=True),
        sa.Column("cron", sa.String(), nullable=True),
        sa.Column("timezone", sa.String(), nullable=True),
        sa.Column("next_fire_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("(cron IS NULL) = (timezone IS NULL)", name=op.f("ck_triggers_schedule_whole")),
        sa.CheckConstraint("(hub IS NULL) = (hub_digest IS NULL)", name=op.f("ck_triggers_hub_with_secret")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_triggers_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_triggers")),
        sa.UniqueConstraint("team_id", "name", name=op.f("uq_triggers_team_id_name")),
        sa.UniqueConstraint("token_digest", name=op.f("uq_triggers_token_digest")),
    )
    op.create_index(op.f("ix_triggers_team_id_created_at_id"), "triggers", ["team_id", "created_at", "id"])
    op.create_index(
        "ix_triggers_due", "triggers", ["next_fire_at"], postgresql_where=sa.text("next_fire_at IS NOT NULL")
    )
    op.create_table(
        "trigger_firings",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("trigger_id", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=True),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("payload", postgresql.JSONB(), nullable=True),
        sa.Column("payload_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("source IN ('manual', 'url', 'hub', 'schedule')", name=op.f("ck_trigger_firings_source")),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'duplicate', 'ignored', 'refused')", name=op.f("ck_trigger_firings_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["trigger_id"], ["triggers.id"], name=op.f("fk_trigger_firings_trigger_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_trigger_firings_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trigger_firings")),
    )
    op.create_index(
        "uq_trigger_firings_event",
        "trigger_firings",
        ["trigger_id", "source", "event_id"],
        unique=True,
        postgresql_where=sa.text("outcome = 'accepted'"),
    )
    op.create_index(
        op.f("ix_trigger_firings_trigger_id_created_at_id"), "trigger_firings", ["trigger_id", "created_at", "id"]
    )
    op.create_index(op.f("ix_trigger_firings_created_at"), "trigger_firings", ["created_at"])


def downgrade() -> None:
    op.drop_table("trigger_firings")
    op.drop_table("triggers")
