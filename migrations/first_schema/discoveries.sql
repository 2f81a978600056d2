-- Discoveries of architectures that nobody listed, the fleet's versions of the library, traces of passes, and counts of tokens.

CREATE TABLE discoveries (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    architecture varchar NOT NULL,
    transformers_version varchar NOT NULL,
    state varchar NOT NULL DEFAULT 'waiting',
    content varchar,
    description jsonb,
    facts jsonb GENERATED ALWAYS AS
        (description - '{linears,structure,vocabulary,discovered,content,labels,passes}'::text[]) STORED,
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
