"""Discoveries of architectures that nobody listed, jobs that wait for one, and the fleet's versions of the library.

Only additions, but the version before would hand out jobs that wait for a discovery: none are left when it comes back,
for they end on the way down.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_NOW = sa.text("clock_timestamp()")
_IS_OPEN = "state IN ('waiting', 'running')"
_AWAITS = "status = 'queued' AND awaits_discovery IS NOT NULL"


def upgrade() -> None:
    # The block below commits all of this before it begins: a migrator that is killed there is followed by one that
    # meets it.
    op.create_table(
        "discoveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("architecture", sa.String(), nullable=False),
        sa.Column("transformers_version", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="waiting", nullable=False),
        sa.Column("config", sa.String(), nullable=True),
        sa.Column("tensors", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("description", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'running', 'found', 'failed')", name=op.f("ck_discoveries_state")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_discoveries_lease_while_running")
        ),
        sa.CheckConstraint(
            "(state = 'found') = (description IS NOT NULL)", name=op.f("ck_discoveries_description_if_found")
        ),
        sa.CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name=op.f("ck_discoveries_error_if_failed")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_discoveries_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_discoveries")),
        if_not_exists=True,
    )
    op.create_index(
        "ix_discoveries_open",
        "discoveries",
        ["transformers_version", "created_at", "id"],
        postgresql_where=sa.text(_IS_OPEN),
        if_not_exists=True,
    )
    op.create_index(
        "ix_discoveries_open_of_team",
        "discoveries",
        ["team_id"],
        postgresql_where=sa.text(_IS_OPEN),
        if_not_exists=True,
    )
    op.create_index(op.f("ix_discoveries_used_at"), "discoveries", ["used_at"], if_not_exists=True)
    op.create_table(
        "discovery_teams",
        sa.Column("discovery_id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["discovery_id"],
            ["discoveries.id"],
            name=op.f("fk_discovery_teams_discovery_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_discovery_teams_team_id")),
        sa.PrimaryKeyConstraint("discovery_id", "team_id", name=op.f("pk_discovery_teams")),
        if_not_exists=True,
    )
    op.create_table(
        "discovery_totals",
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("discoveries", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("error_code", name=op.f("pk_discovery_totals")),
        if_not_exists=True,
    )
    op.create_table(
        "library_versions",
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("transformers_version", sa.String(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("queue", "transformers_version", name=op.f("pk_library_versions")),
        if_not_exists=True,
    )
    op.add_column("jobs", sa.Column("awaits_discovery", sa.String(), nullable=True), if_not_exists=True)
    with op.get_context().autocommit_block():
        op.drop_index("ix_jobs_awaiting", table_name="jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_awaiting",
            "jobs",
            ["awaits_discovery"],
            postgresql_where=sa.text(_AWAITS),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    problem = (
        '{"code": "unsupported_architecture", "message": "this release does not discover architectures", '
        '"param": "model", "retryable": false}'
    )
    op.execute(
        sa.text(
            "UPDATE jobs SET status = 'failed', finished_at = clock_timestamp(), error = CAST(:problem AS jsonb) "
            f"WHERE {_AWAITS}"
        ).bindparams(problem=problem)
    )
    with op.get_context().autocommit_block():
        op.drop_index("ix_jobs_awaiting", table_name="jobs", postgresql_concurrently=True)
    op.drop_column("jobs", "awaits_discovery")
    for table in ("library_versions", "discovery_totals", "discovery_teams", "discoveries"):
        op.drop_table(table)
