"""Complete schema of the first release, one SQL file for each noun."""

from pathlib import Path

from alembic import op

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).resolve().parent.parent / "first_schema"
_NOUNS = (
    "teams",
    "sources",
    "jobs",
    "artifacts",
    "publications",
    "webhooks",
    "triggers",
    "sweeps",
    "discoveries",
    "questions",
    "samples",
    "duties",
)
"""Files in the order of their foreign keys."""
_DROP = """
    DO $$
    DECLARE
        name text;
    BEGIN
        FOR name IN
            SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'alembic_version'
        LOOP
            EXECUTE format('DROP TABLE %I CASCADE', name);
        END LOOP;
    END
    $$;
    DROP FUNCTION audit_is_append_only, note_artifact_of_job, note_artifacts_of_files, note_artifacts;
"""


def upgrade() -> None:
    for noun in _NOUNS:
        _run((_SQL / f"{noun}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    _run(_DROP)


def _run(statements: str) -> None:
    """Run statements unchanged: percent signs and colons in them are not parameters."""
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
