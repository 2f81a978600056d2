-- Requests for the sample job of a new team.

CREATE TABLE sample_requests (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    state varchar NOT NULL DEFAULT 'waiting',
    goal varchar,
    step varchar,
    job_id varchar,
    error jsonb,
    attempts integer NOT NULL DEFAULT 0,
    worker_id varchar,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT pk_sample_requests PRIMARY KEY (id),
    CONSTRAINT fk_sample_requests_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_sample_requests_error_if_failed CHECK ((state = 'failed') = (error IS NOT NULL)),
    CONSTRAINT ck_sample_requests_lease_while_running CHECK ((state = 'running') = (lease_expires_at IS NOT NULL)),
    CONSTRAINT ck_sample_requests_state CHECK (state IN ('waiting', 'running', 'ready', 'failed'))
);
CREATE UNIQUE INDEX ix_sample_requests_open ON sample_requests (team_id) WHERE state IN ('waiting', 'running');
CREATE INDEX ix_sample_requests_team_id_created_at ON sample_requests (team_id, created_at);
