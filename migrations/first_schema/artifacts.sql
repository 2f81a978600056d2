-- Artifacts with what retention asks of them, kept by triggers; retention policies.

CREATE TABLE artifacts (
    job_id varchar NOT NULL,
    team_id varchar NOT NULL,
    model varchar NOT NULL,
    method varchar NOT NULL,
    metadata jsonb NOT NULL,
    finished_at timestamptz NOT NULL,
    succeeded boolean NOT NULL,
    files integer NOT NULL,
    bytes bigint NOT NULL,
    perplexity_ratio double precision,
    parameters double precision,
    latency double precision,
    CONSTRAINT pk_artifacts PRIMARY KEY (job_id),
    CONSTRAINT fk_artifacts_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    CONSTRAINT fk_artifacts_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_artifacts_best_bytes_of_method ON artifacts (team_id, method, bytes, finished_at DESC, job_id)
    WHERE succeeded AND bytes IS NOT NULL;
CREATE INDEX ix_artifacts_best_bytes_of_model ON artifacts (team_id, model, bytes, finished_at DESC, job_id)
    WHERE succeeded AND bytes IS NOT NULL;
CREATE INDEX ix_artifacts_best_bytes_of_team ON artifacts (team_id, bytes, finished_at DESC, job_id)
    WHERE succeeded AND bytes IS NOT NULL;
CREATE INDEX ix_artifacts_best_latency_of_method ON artifacts (team_id, method, latency, finished_at DESC, job_id)
    WHERE succeeded AND latency IS NOT NULL;
CREATE INDEX ix_artifacts_best_latency_of_model ON artifacts (team_id, model, latency, finished_at DESC, job_id)
    WHERE succeeded AND latency IS NOT NULL;
CREATE INDEX ix_artifacts_best_latency_of_team ON artifacts (team_id, latency, finished_at DESC, job_id)
    WHERE succeeded AND latency IS NOT NULL;
CREATE INDEX ix_artifacts_best_parameters_of_method ON artifacts (team_id, method, parameters, finished_at DESC, job_id)
    WHERE succeeded AND parameters IS NOT NULL;
CREATE INDEX ix_artifacts_best_parameters_of_model ON artifacts (team_id, model, parameters, finished_at DESC, job_id)
    WHERE succeeded AND parameters IS NOT NULL;
CREATE INDEX ix_artifacts_best_parameters_of_team ON artifacts (team_id, parameters, finished_at DESC, job_id)
    WHERE succeeded AND parameters IS NOT NULL;
CREATE INDEX ix_artifacts_best_perplexity_ratio_of_method ON artifacts
    (team_id, method, perplexity_ratio, finished_at DESC, job_id)
    WHERE succeeded AND perplexity_ratio IS NOT NULL;
CREATE INDEX ix_artifacts_best_perplexity_ratio_of_model ON artifacts
    (team_id, model, perplexity_ratio, finished_at DESC, job_id)
    WHERE succeeded AND perplexity_ratio IS NOT NULL;
CREATE INDEX ix_artifacts_best_perplexity_ratio_of_team ON artifacts
    (team_id, perplexity_ratio, finished_at DESC, job_id)
    WHERE succeeded AND perplexity_ratio IS NOT NULL;
CREATE INDEX ix_artifacts_by_end ON artifacts (team_id, finished_at, job_id);

-- The figures of a job's metrics are whatever a runner wrote: none makes the query fail, for a job's end must not
-- depend on one.
CREATE FUNCTION note_artifacts(changed text[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM artifacts WHERE job_id = ANY (changed);
    INSERT INTO artifacts (
        job_id, team_id, model, method, metadata, finished_at, succeeded, files, bytes, perplexity_ratio, parameters,
        latency
    )
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
        AND jobs.id = ANY (changed);
$$;

CREATE FUNCTION note_artifact_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_artifacts(ARRAY[NEW.id::text]);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_artifact AFTER UPDATE OF finished_at, metrics ON jobs FOR EACH ROW
    WHEN (OLD.finished_at IS DISTINCT FROM NEW.finished_at OR OLD.metrics IS DISTINCT FROM NEW.metrics)
    EXECUTE FUNCTION note_artifact_of_job();

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
