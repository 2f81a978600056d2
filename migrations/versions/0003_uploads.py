"""Uploads, and models and texts that lie in the store.

Only additions: the version before runs on with this schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    for table in ("models", "datasets"):
        op.alter_column(table, "path", nullable=True)
        op.add_column(table, sa.Column("prefix", sa.String()))
        op.add_column(table, sa.Column("files", _JSON))
        op.create_check_constraint(op.f(f"ck_{table}_path_or_prefix"), table, "(path IS NULL) <> (prefix IS NULL)")
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("status", sa.String(), server_default="open", nullable=False),
        sa.Column("object_id", sa.String(), nullable=False),
        sa.Column("format", sa.String()),
        sa.Column("text_field", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("part_bytes", sa.Integer(), nullable=False),
        sa.Column("error", _JSON),
        sa.Column("completing_until", sa.DateTime(timezone=True)),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("kind IN ('model', 'dataset')", name=op.f("ck_uploads_kind")),
        sa.CheckConstraint("status IN ('open', 'complete', 'failed')", name=op.f("ck_uploads_status")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_uploads_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_team_id_created_at_id"), "uploads", ["team_id", "created_at", "id"])
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"])
    op.create_index(
        "ix_uploads_open",
        "uploads",
        ["team_id", "kind", "name"],
        unique=True,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "upload_files",
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("received", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("checked", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("stored", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("fk_upload_files_upload_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("upload_id", "path", name=op.f("pk_upload_files")),
    )
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id", "path"],
            ["upload_files.upload_id", "upload_files.path"],
            name="fk_upload_parts_file",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", "path", "start", name=op.f("pk_upload_parts")),
    )


def downgrade() -> None:
    for table in ("upload_parts", "upload_files", "uploads"):
        op.drop_table(table)
    for table in ("datasets", "models"):
        op.execute(f"DELETE FROM {table} WHERE path IS NULL")
        op.drop_constraint(op.f(f"ck_{table}_path_or_prefix"), table)
        op.drop_column(table, "files")
        op.drop_column(table, "prefix")
        op.alter_column(table, "path", nullable=False)
