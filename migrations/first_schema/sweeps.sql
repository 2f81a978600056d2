-- Sweeps and their points.

CREATE TABLE sweeps (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    status varchar NOT NULL DEFAULT 'running',
    name varchar,
    model varchar NOT NULL,
    model_revision varchar NOT NULL,
    pinned varchar NOT NULL,
    max_concurrent integer NOT NULL,
    request jsonb NOT NULL,
    skipped jsonb NOT NULL DEFAULT '[]',
    baseline jsonb,
    error jsonb,
    waiting_for varchar,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT pk_sweeps PRIMARY KEY (id),
    CONSTRAINT fk_sweeps_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_sweeps_status CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled'))
);
CREATE INDEX ix_sweeps_list ON sweeps (team_id, created_at, id);
CREATE INDEX ix_sweeps_list_by_status ON sweeps (team_id, status, created_at, id);
CREATE INDEX ix_sweeps_running ON sweeps (id) WHERE status = 'running';

CREATE TABLE sweep_points (
    sweep_id varchar NOT NULL,
    number integer NOT NULL,
    stage varchar NOT NULL DEFAULT 'full',
    point_values jsonb NOT NULL,
    pattern varchar NOT NULL,
    measures varchar,
    verifies integer,
    job_id varchar,
    again boolean NOT NULL DEFAULT false,
    error jsonb,
    CONSTRAINT pk_sweep_points PRIMARY KEY (sweep_id, number),
    CONSTRAINT fk_sweep_points_job_id FOREIGN KEY (job_id) REFERENCES jobs (id) ON DELETE CASCADE,
    CONSTRAINT fk_sweep_points_sweep_id FOREIGN KEY (sweep_id) REFERENCES sweeps (id) ON DELETE CASCADE,
    CONSTRAINT ck_sweep_points_stage CHECK (stage IN ('full', 'probe'))
);
CREATE UNIQUE INDEX ix_sweep_points_job_id ON sweep_points (job_id);
