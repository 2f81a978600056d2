"""Indexes for lists in every order and for their search; none any more that renewing a lease would have to write.

All are built beside whatever else runs. The version before runs on with this schema; where it looks for leases that ran
out it reads the whole table of jobs meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_WORDS = (
    "array_to_tsvector(array_append(array_remove(string_to_array(regexp_replace("
    "lower((((((id::text || ' ') || model::text) || ' ') || method::text) || ' ')"
    " || jsonb_path_query_array(metadata, '$.*')::text), "
    r"'\\(u[0-9a-f]{4}|.)|[\u0001-\u002f\u003a-\u0040\u005b\u005d-\u0060\u007b-\u007f]+', ' ', 'g'"
    "), ' '), ''), '_' || team_id::text))"
)
_IN_LIFE = (
    "array_position(ARRAY['queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'], CAST(status AS text))"
)
_NEWEST_FIRST = (sa.text("created_at DESC"), sa.text("id DESC"))
_LISTS: dict[str, str | sa.TextClause] = {
    "ix_jobs_list_by_model": "model",
    "ix_jobs_list_by_method": "method",
    "ix_jobs_list_by_life": sa.text(_IN_LIFE),
    "ix_jobs_list_by_end": sa.text("finished_at DESC NULLS LAST"),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name in (*_LISTS, "ix_jobs_words", "ix_jobs_held"):  # what a build that was cut off left, of no use
            op.drop_index(name, table_name="jobs", if_exists=True, postgresql_concurrently=True)
        for name, column in _LISTS.items():
            op.create_index(name, "jobs", ["team_id", column, *_NEWEST_FIRST], postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_words",
            "jobs",
            [sa.text(_WORDS)],
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_jobs_held",
            "jobs",
            ["team_id", "id"],
            postgresql_where=sa.text("status IN ('running', 'cancelling')"),
            postgresql_concurrently=True,
        )
        op.drop_index("ix_jobs_lease", table_name="jobs", if_exists=True, postgresql_concurrently=True)
        op.execute("ANALYZE jobs")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_jobs_lease",
            "jobs",
            ["lease_expires_at"],
            postgresql_where=sa.text("lease_expires_at IS NOT NULL"),
            postgresql_concurrently=True,
        )
        for name in ("ix_jobs_held", "ix_jobs_words", *_LISTS):
            op.drop_index(name, table_name="jobs", postgresql_concurrently=True)
