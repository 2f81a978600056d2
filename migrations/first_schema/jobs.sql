-- Jobs with their events, reports, attempts and files; the workers; what the metrics count of them.

CREATE TABLE jobs (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    status varchar NOT NULL DEFAULT 'queued',
    stage varchar,
    progress double precision NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    attempts_allowed integer NOT NULL,
    last_event integer NOT NULL DEFAULT 0,
    body jsonb NOT NULL,
    sources jsonb NOT NULL,
    model varchar NOT NULL,
    model_revision varchar NOT NULL,
    method varchar NOT NULL,
    queue varchar NOT NULL,
    priority integer NOT NULL,
    metadata jsonb NOT NULL,
    error jsonb,
    metrics jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    available_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dispatched_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    lease_expires_at timestamptz,
    worker_id varchar,
    estimate jsonb,
    request_id varchar,
    traceparent varchar,
    events_removed_at timestamptz,
    needs_device_memory_bytes bigint,
    needs_memory_bytes bigint,
    needs_disk_bytes bigint,
    outgrown_device_memory_bytes bigint,
    outgrown_memory_bytes bigint,
    size integer NOT NULL DEFAULT 0,
    is_corrected boolean NOT NULL DEFAULT false,
    awaits_discovery varchar,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT fk_jobs_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_jobs_lease_while_held CHECK ((status IN ('running', 'cancelling')) = (lease_expires_at IS NOT NULL)),
    CONSTRAINT ck_jobs_progress CHECK (progress BETWEEN 0 AND 1),
    CONSTRAINT ck_jobs_status CHECK (status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'))
) WITH (autovacuum_vacuum_scale_factor = 0.01);
CREATE INDEX ix_jobs_awaiting ON jobs (awaits_discovery) WHERE status = 'queued' AND awaits_discovery IS NOT NULL;
CREATE INDEX ix_jobs_events_kept ON jobs (finished_at) WHERE finished_at IS NOT NULL AND events_removed_at IS NULL;
CREATE INDEX ix_jobs_exports ON jobs (team_id, created_at DESC) WHERE status = 'succeeded' AND metrics ? 'exports';
CREATE INDEX ix_jobs_held ON jobs (team_id, id) WHERE status IN ('running', 'cancelling');
CREATE INDEX ix_jobs_list ON jobs (team_id, created_at, id);
CREATE INDEX ix_jobs_list_by_end ON jobs (team_id, finished_at DESC NULLS LAST, created_at DESC, id DESC);
CREATE INDEX ix_jobs_list_by_life ON jobs (
    team_id,
    array_position(ARRAY['queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled'], status::text),
    created_at DESC,
    id DESC
);
CREATE INDEX ix_jobs_list_by_method ON jobs (team_id, method, created_at DESC, id DESC);
CREATE INDEX ix_jobs_list_by_model ON jobs (team_id, model, created_at DESC, id DESC);
CREATE INDEX ix_jobs_list_by_status ON jobs (team_id, status, created_at, id);
CREATE INDEX ix_jobs_metadata ON jobs USING gin (metadata jsonb_path_ops);
CREATE INDEX ix_jobs_teachers ON jobs (team_id, (body -> 'recovery' ->> 'teacher'))
    WHERE status IN ('queued', 'running', 'cancelling') AND body -> 'recovery' ->> 'teacher' IS NOT NULL;
CREATE INDEX ix_jobs_uncorrected ON jobs (queue, method) WHERE status = 'queued' AND NOT is_corrected;
CREATE INDEX ix_jobs_waiting_by_queue ON jobs (queue, priority DESC, created_at, id) WHERE status = 'queued';
CREATE INDEX ix_jobs_waiting_by_team ON jobs (team_id, queue, size, priority DESC, created_at, id)
    WHERE status = 'queued';
CREATE INDEX ix_jobs_words ON jobs USING gin (
    array_to_tsvector(array_append(array_remove(string_to_array(regexp_replace(
        lower(id::text || ' ' || model::text || ' ' || method::text || ' '
            || jsonb_path_query_array(metadata, '$.*')::text),
        '\\(u[0-9a-f]{4}|.)|[\u0001-\u002f\u003a-\u0040\u005b\u005d-\u0060\u007b-\u007f]+', ' ', 'g'
    ), ' '), ''), '_' || team_id::text))
) WITH (fastupdate = off);

CREATE TABLE job_events (
    job_id varchar NOT NULL,
    sequence integer NOT NULL,
    type varchar NOT NULL,
    attempt integer NOT NULL,
    data jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_job_events PRIMARY KEY (job_id, sequence),
    CONSTRAINT fk_job_events_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE TABLE job_reports (
    job_id varchar NOT NULL,
    attempt integer NOT NULL,
    report jsonb NOT NULL,
    CONSTRAINT pk_job_reports PRIMARY KEY (job_id, attempt),
    CONSTRAINT fk_job_reports_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE TABLE job_attempts (
    job_id varchar NOT NULL,
    attempt integer NOT NULL,
    team_id varchar NOT NULL,
    queue varchar NOT NULL,
    method varchar NOT NULL,
    worker_id varchar NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    outcome varchar,
    error_code varchar,
    stages jsonb,
    needs jsonb,
    measured jsonb,
    counted boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_job_attempts PRIMARY KEY (job_id, attempt),
    CONSTRAINT fk_job_attempts_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    CONSTRAINT fk_job_attempts_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_job_attempts_history ON job_attempts (queue, method, ended_at) WHERE measured IS NOT NULL;
CREATE INDEX ix_job_attempts_team_id_started_at ON job_attempts (team_id, started_at);
CREATE INDEX ix_job_attempts_to_count ON job_attempts (ended_at) WHERE ended_at IS NOT NULL AND NOT counted;

CREATE TABLE artifact_files (
    job_id varchar NOT NULL,
    attempt integer NOT NULL,
    path varchar NOT NULL,
    bytes bigint NOT NULL,
    sha256 varchar NOT NULL,
    CONSTRAINT pk_artifact_files PRIMARY KEY (job_id, attempt, path),
    CONSTRAINT fk_artifact_files_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE
);

CREATE TABLE workers (
    id varchar NOT NULL,
    queue varchar NOT NULL,
    device varchar NOT NULL,
    hostname varchar NOT NULL,
    pid integer NOT NULL,
    job_id varchar,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    state varchar NOT NULL DEFAULT 'idle',
    reason varchar,
    device_name varchar,
    device_memory_bytes bigint,
    memory_bytes bigint,
    disk_free_bytes bigint,
    version varchar,
    device_memory_used_bytes bigint,
    work_folders integer,
    work_bytes bigint,
    device_id varchar,
    device_utilisation double precision,
    device_celsius integer,
    device_uncorrected_errors bigint,
    runtimes varchar[],
    operations_per_second double precision,
    CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_workers_heartbeat_at ON workers (heartbeat_at);
CREATE INDEX ix_workers_queue ON workers (queue);

CREATE TABLE peak_ratios (
    queue varchar NOT NULL,
    method varchar NOT NULL,
    device_memory double precision,
    memory double precision,
    disk double precision,
    CONSTRAINT pk_peak_ratios PRIMARY KEY (queue, method)
);

CREATE TABLE attempt_totals (
    queue varchar NOT NULL,
    method varchar NOT NULL,
    outcome varchar NOT NULL,
    error_code varchar NOT NULL,
    attempts bigint NOT NULL,
    seconds double precision NOT NULL,
    CONSTRAINT pk_attempt_totals PRIMARY KEY (queue, method, outcome, error_code)
);

CREATE TABLE stage_totals (
    stage varchar NOT NULL,
    outcome varchar NOT NULL,
    at_most double precision NOT NULL,
    attempts bigint NOT NULL,
    seconds double precision NOT NULL,
    CONSTRAINT pk_stage_totals PRIMARY KEY (stage, outcome, at_most)
);
