-- Artifacts with what retention asks of them, kept by triggers; retention policies.

CREATE TABLE artifacts (
    job_id varchar NOT NULL,
    team_id varchar NOT NULL,
    model varchar NOT NULL,
    method varchar NOT NULL,
    metadata jsonb NOT NULL,
    finished_at timestamptz NOT NULL,
    files integer NOT NULL,
    bytes bigint NOT NULL,
    CONSTRAINT pk_artifacts PRIMARY KEY (job_id),
    CONSTRAINT fk_artifacts_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    CONSTRAINT fk_artifacts_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_artifacts_by_end ON artifacts (team_id, finished_at, job_id);

CREATE FUNCTION note_artifacts(changed text[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM artifacts WHERE job_id = ANY (changed);
    INSERT INTO artifacts (job_id, team_id, model, method, metadata, finished_at, files, bytes)
    SELECT jobs.id, jobs.team_id, jobs.model, jobs.method, jobs.metadata, jobs.finished_at, stored.files, stored.bytes
    FROM jobs
    CROSS JOIN LATERAL (
        SELECT count(*) AS files, sum(bytes) AS bytes FROM artifact_files WHERE job_id = jobs.id HAVING count(*) > 0
    ) AS stored
    WHERE jobs.status IN ('succeeded', 'failed', 'cancelled') AND jobs.finished_at IS NOT NULL
        AND jobs.id = ANY (changed);
$$;

CREATE FUNCTION note_artifact_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_artifacts(ARRAY[NEW.id::text]);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_artifact AFTER UPDATE OF finished_at ON jobs FOR EACH ROW
    WHEN (OLD.finished_at IS DISTINCT FROM NEW.finished_at) EXECUTE FUNCTION note_artifact_of_job();

CREATE FUNCTION note_artifacts_of_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_artifacts((SELECT array_agg(DISTINCT job_id::text) FROM changed));
    RETURN NULL;
END
$$;
CREATE TRIGGER note_artifacts_on_insert AFTER INSERT ON artifact_files
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_artifacts_of_files();
CREATE TRIGGER note_artifacts_on_delete AFTER DELETE ON artifact_files
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_artifacts_of_files();

CREATE TABLE artifact_reads (
    job_id varchar NOT NULL,
    read_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_artifact_reads PRIMARY KEY (job_id),
    CONSTRAINT fk_artifact_reads_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE TABLE retention_policies (
    team_id varchar NOT NULL,
    policy jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_retention_policies PRIMARY KEY (team_id),
    CONSTRAINT fk_retention_policies_team_id FOREIGN KEY (team_id) REFERENCES teams (id) ON DELETE CASCADE
);
