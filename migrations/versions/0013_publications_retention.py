"""Publications of artifacts, and what teams keep of theirs.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
_NOW = sa.text("clock_timestamp()")
_MOMENT = sa.DateTime(timezone=True)
_OPEN = sa.text("status IN ('queued', 'running')")


def upgrade() -> None:
    op.create_table(
        "publications",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("job_attempt", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default="queued", nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("destination", _JSON, nullable=False),
        sa.Column("credentials", sa.LargeBinary()),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("files_done", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", _JSON),
        sa.Column("result", _JSON),
        sa.Column("created_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("available_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("lease_expires_at", _MOMENT),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_publications_status")
        ),
        sa.CheckConstraint(
            "(status IN ('queued', 'running')) = (credentials IS NOT NULL)",
            name=op.f("ck_publications_credentials_while_open"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_publications_lease_while_running")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_publications_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_publications_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_publications")),
    )
    op.create_index("ix_publications_open", "publications", ["team_id", "place"], unique=True, postgresql_where=_OPEN)
    op.create_index("ix_publications_due", "publications", ["created_at", "id"], postgresql_where=_OPEN)
    op.create_index(op.f("ix_publications_job_id_created_at_id"), "publications", ["job_id", "created_at", "id"])
    op.create_table(
        "retention_policies",
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("policy", _JSON, nullable=False),
        sa.Column("updated_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name=op.f("fk_retention_policies_team_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_retention_policies")),
    )
    op.create_table(
        "artifact_reads",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("read_at", _MOMENT, server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_artifact_reads_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_artifact_reads")),
    )


def downgrade() -> None:
    op.drop_table("artifact_reads")
    op.drop_table("retention_policies")
    op.drop_table("publications")
