-- Discoveries of architectures that nobody listed, the fleet's versions of the library, traces of passes, and counts of tokens.

CREATE TABLE discoveries (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    architecture varchar NOT NULL,
    transformers_version varchar NOT NULL,
    state varchar NOT NULL DEFAULT 'waiting',
    config varchar,
    tensors jsonb,
    description jsonb,
    error jsonb,
    attempts integer NOT NULL DEFAULT 0,
    worker_id varchar,
    lease_expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_discoveries PRIMARY KEY (id),
    CONSTRAINT fk_discoveries_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_discoveries_description_if_found CHECK ((state = 'found') = (description IS NOT NULL)),
    CONSTRAINT ck_discoveries_error_if_failed CHECK ((state = 'failed') = (error IS NOT NULL)),
    CONSTRAINT ck_discoveries_lease_while_running CHECK ((state = 'running') = (lease_expires_at IS NOT NULL)),
    CONSTRAINT ck_discoveries_state CHECK (state IN ('waiting', 'running', 'found', 'failed'))
);
CREATE INDEX ix_discoveries_failed ON discoveries (finished_at)
    WHERE state = 'failed' AND error ->> 'code' = 'discovery_failed';
CREATE INDEX ix_discoveries_open ON discoveries (transformers_version, created_at, id)
    WHERE state IN ('waiting', 'running');
CREATE INDEX ix_discoveries_open_of_team ON discoveries (team_id) WHERE state IN ('waiting', 'running');
CREATE INDEX ix_discoveries_used_at ON discoveries (used_at);

CREATE TABLE discovery_teams (
    discovery_id varchar NOT NULL,
    team_id varchar NOT NULL,
    CONSTRAINT pk_discovery_teams PRIMARY KEY (discovery_id, team_id),
    CONSTRAINT fk_discovery_teams_discovery_id FOREIGN KEY (discovery_id) REFERENCES discoveries (id) ON DELETE CASCADE,
    CONSTRAINT fk_discovery_teams_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);

CREATE TABLE discovery_totals (
    error_code varchar NOT NULL,
    discoveries bigint NOT NULL,
    seconds double precision NOT NULL,
    CONSTRAINT pk_discovery_totals PRIMARY KEY (error_code)
);

CREATE TABLE library_versions (
    queue varchar NOT NULL,
    transformers_version varchar NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_library_versions PRIMARY KEY (queue, transformers_version)
);

CREATE TABLE pass_traces (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    model jsonb NOT NULL,
    traced jsonb NOT NULL,
    peak_bytes bigint,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_pass_traces PRIMARY KEY (id),
    CONSTRAINT fk_pass_traces_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_pass_traces_due ON pass_traces (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_pass_traces_used_at ON pass_traces (used_at);

CREATE TABLE token_counts (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    model jsonb NOT NULL,
    vocabulary_size integer NOT NULL,
    text jsonb NOT NULL,
    counted jsonb,
    refusal varchar,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_token_counts PRIMARY KEY (id),
    CONSTRAINT fk_token_counts_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_token_counts_due ON token_counts (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_token_counts_used_at ON token_counts (used_at);
