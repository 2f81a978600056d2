"""Artifacts with what retention asks of them, in a table of their own; and indexes for what grows with a team's rows.

Triggers keep the table, whoever writes jobs and their files: the version before runs on with this schema. Where it is
cut off, it goes on when it is run again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_TEACHER = "((body -> 'recovery'::text) ->> 'teacher'::text)"
_AGE = ("created_at", "id")
_INDEXES: dict[str, tuple[str, list[str | sa.TextClause], str | None]] = {
    "ix_jobs_teachers": (
        "jobs",
        ["team_id", sa.text(_TEACHER)],
        f"status IN ('queued', 'running', 'cancelling') AND {_TEACHER} IS NOT NULL",
    ),
    "ix_jobs_exports": (
        "jobs",
        ["team_id", sa.text("created_at DESC")],
        "status = 'succeeded' AND metrics ? 'exports'",
    ),
    "ix_workers_heartbeat_at": ("workers", ["heartbeat_at"], None),
    "ix_workers_queue": ("workers", ["queue"], None),
    "ix_discoveries_failed": (
        "discoveries",
        ["finished_at"],
        "state = 'failed' AND (error ->> 'code'::text) = 'discovery_failed'::text",
    ),
    "ix_webhooks_disabled": ("webhooks", ["disabled_at"], "NOT enabled"),
    "ix_webhook_deliveries_by_state": ("webhook_deliveries", ["webhook_id", "state", *_AGE], None),
    "ix_webhook_deliveries_by_type": ("webhook_deliveries", ["webhook_id", "type", *_AGE], None),
    "ix_sweeps_list_by_status": ("sweeps", ["team_id", "status", *_AGE], None),
    "ix_uploads_list_by_kind": ("uploads", ["team_id", "kind", *_AGE], None),
    "ix_uploads_list_by_status": ("uploads", ["team_id", "status", *_AGE], None),
}
_FIGURES = ("perplexity_ratio", "bytes", "parameters", "latency")
_GROUPS = ("model", "method", "team")
_NEWEST_FIRST = (sa.text("finished_at DESC"), "job_id")
_ARTIFACTS_OF = """
    SELECT
        jobs.id, jobs.team_id, jobs.model, jobs.method, jobs.metadata, jobs.finished_at, jobs.status = 'succeeded',
        stored.files, stored.bytes, ratio.mean, parameters.nonzero, latency.pruned_ms
    FROM jobs
    CROSS JOIN LATERAL (
        SELECT count(*) AS files, sum(bytes) AS bytes FROM artifact_files WHERE job_id = jobs.id HAVING count(*) > 0
    ) AS stored
    CROSS JOIN LATERAL (
        SELECT sum(least(value::numeric, 1e300)::float8) / count(*) AS mean
        FROM jsonb_path_query(jobs.metrics, '$.perplexity.*.ratio ? (@.type() == "number")', '{}', true) AS value
    ) AS ratio
    CROSS JOIN LATERAL (
        SELECT min(least(value::numeric, 1e300)::float8) AS nonzero
        FROM jsonb_path_query(jobs.metrics, '$.parameters.nonzero ? (@.type() == "number")', '{}', true) AS value
    ) AS parameters
    CROSS JOIN LATERAL (
        SELECT min(least(value::numeric, 1e300)::float8) AS pruned_ms
        FROM jsonb_path_query(jobs.metrics, '$.latency.pruned_ms ? (@.type() == "number")', '{}', true) AS value
    ) AS latency
    WHERE jobs.status IN ('succeeded', 'failed', 'cancelled') AND jobs.finished_at IS NOT NULL
"""
"""Query for the rows of `artifacts`. No foreign figure makes it fail: a job's end must not depend on one."""
_COLUMNS = (
    "job_id, team_id, model, method, metadata, finished_at, succeeded, files, bytes, perplexity_ratio, parameters,"
    " latency"
)
_FILL = """
    DO $$
    DECLARE
        batch text[];
        last text := '';
    BEGIN
        LOOP
            SELECT array_agg(job_id), max(job_id) INTO batch, last FROM (
                SELECT DISTINCT job_id FROM artifact_files WHERE job_id > last ORDER BY job_id LIMIT 1000
            ) AS next;
            EXIT WHEN batch IS NULL;
            PERFORM FROM jobs WHERE id = ANY (batch) ORDER BY id FOR SHARE;
            PERFORM note_artifacts(batch);
            COMMIT;
        END LOOP;
    END
    $$
"""
"""Statement that writes the rows of all artifacts, some at a time: a job's end waits for one such batch at most."""


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("team_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("perplexity_ratio", sa.Double()),
        sa.Column("parameters", sa.Double()),
        sa.Column("latency", sa.Double()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_artifacts_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_artifacts_team_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_artifacts")),
        if_not_exists=True,
    )
    op.create_index("ix_artifacts_by_end", "artifacts", ["team_id", "finished_at", "job_id"], if_not_exists=True)
    for figure in _FIGURES:
        for group in _GROUPS:
            op.create_index(
                f"ix_artifacts_best_{figure}_of_{group}",
                "artifacts",
                ["team_id", *(() if group == "team" else (group,)), figure, *_NEWEST_FIRST],
                postgresql_where=sa.text(f"succeeded AND {figure} IS NOT NULL"),
                if_not_exists=True,
            )
    op.execute(f"""
        CREATE OR REPLACE FUNCTION note_artifacts(changed text[]) RETURNS void LANGUAGE sql AS $$
            DELETE FROM artifacts WHERE job_id = ANY (changed);
            INSERT INTO artifacts ({_COLUMNS}) {_ARTIFACTS_OF} AND jobs.id = ANY (changed);
        $$
    """)
    op.execute("""
        CREATE OR REPLACE FUNCTION note_artifact_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM note_artifacts(ARRAY[NEW.id::text]);
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE OR REPLACE FUNCTION note_artifacts_of_files() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM note_artifacts((SELECT array_agg(DISTINCT job_id::text) FROM changed));
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE OR REPLACE TRIGGER note_artifact AFTER UPDATE OF finished_at, metrics ON jobs FOR EACH ROW
        WHEN (OLD.finished_at IS DISTINCT FROM NEW.finished_at OR OLD.metrics IS DISTINCT FROM NEW.metrics)
        EXECUTE FUNCTION note_artifact_of_job()
    """)
    for action, changed in (("insert", "NEW"), ("delete", "OLD")):
        op.execute(f"""
            CREATE OR REPLACE TRIGGER note_artifacts_on_{action} AFTER {action} ON artifact_files
            REFERENCING {changed} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_artifacts_of_files()
        """)
    with op.get_context().autocommit_block():  # from here on, jobs that end are written by the triggers
        op.execute(_FILL)
        op.execute("ANALYZE artifacts")
        for name, (table, columns, where) in _INDEXES.items():  # what a build that was cut off left is of no use
            op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                columns,
                postgresql_where=None if where is None else sa.text(where),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, (table, _, _) in _INDEXES.items():
            op.drop_index(name, table_name=table, postgresql_concurrently=True)
    for action in ("delete", "insert"):
        op.execute(f"DROP TRIGGER note_artifacts_on_{action} ON artifact_files")
    op.execute("DROP TRIGGER note_artifact ON jobs")
    for function in ("note_artifacts_of_files()", "note_artifact_of_job()", "note_artifacts(text[])"):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_table("artifacts")
