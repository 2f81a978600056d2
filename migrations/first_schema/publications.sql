-- Publications of artifacts.

CREATE TABLE publications (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    job_id varchar NOT NULL,
    job_attempt integer NOT NULL,
    actor varchar NOT NULL,
    status varchar NOT NULL DEFAULT 'queued',
    place varchar NOT NULL,
    destination jsonb NOT NULL,
    credentials bytea,
    attempt integer NOT NULL DEFAULT 0,
    files integer NOT NULL,
    bytes bigint NOT NULL,
    files_done integer NOT NULL DEFAULT 0,
    bytes_done bigint NOT NULL DEFAULT 0,
    error jsonb,
    result jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    available_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    lease_expires_at timestamptz,
    CONSTRAINT pk_publications PRIMARY KEY (id),
    CONSTRAINT fk_publications_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    CONSTRAINT fk_publications_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_publications_credentials_while_open CHECK ((status IN ('queued', 'running')) = (credentials IS NOT NULL)),
    CONSTRAINT ck_publications_lease_while_running CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CONSTRAINT ck_publications_status CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled'))
);
CREATE INDEX ix_publications_due ON publications (created_at, id) WHERE status IN ('queued', 'running');
CREATE INDEX ix_publications_job_id_created_at_id ON publications (job_id, created_at, id);
CREATE UNIQUE INDEX ix_publications_open ON publications (team_id, place) WHERE status IN ('queued', 'running');
