-- Triggers, and the history of their firings.

CREATE TABLE triggers (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    name varchar NOT NULL,
    description varchar NOT NULL DEFAULT '',
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason varchar,
    template jsonb NOT NULL,
    placeholders jsonb NOT NULL,
    event_id varchar,
    token_digest bytea NOT NULL,
    signing_secret bytea,
    hub jsonb,
    hub_digest bytea,
    cron varchar,
    timezone varchar,
    next_fire_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_triggers PRIMARY KEY (id),
    CONSTRAINT uq_triggers_team_id_name UNIQUE (team_id, name),
    CONSTRAINT uq_triggers_token_digest UNIQUE (token_digest),
    CONSTRAINT fk_triggers_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_triggers_hub_with_secret CHECK ((hub IS NULL) = (hub_digest IS NULL)),
    CONSTRAINT ck_triggers_schedule_whole CHECK ((cron IS NULL) = (timezone IS NULL))
);
CREATE INDEX ix_triggers_due ON triggers (next_fire_at) WHERE next_fire_at IS NOT NULL;
CREATE INDEX ix_triggers_team_id_created_at_id ON triggers (team_id, created_at, id);

CREATE TABLE trigger_firings (
    id varchar NOT NULL,
    trigger_id varchar NOT NULL,
    source varchar NOT NULL,
    outcome varchar NOT NULL,
    event_id varchar,
    job_id varchar,
    error jsonb,
    note varchar,
    payload jsonb,
    payload_bytes bigint NOT NULL DEFAULT 0,
    actor varchar,
    address varchar,
    request_id varchar,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_trigger_firings PRIMARY KEY (id),
    CONSTRAINT fk_trigger_firings_job_id FOREIGN KEY (job_id) REFERENCES jobs (id),
    CONSTRAINT fk_trigger_firings_trigger_id FOREIGN KEY (trigger_id) REFERENCES triggers (id) ON DELETE CASCADE,
    CONSTRAINT ck_trigger_firings_outcome CHECK (outcome IN ('accepted', 'duplicate', 'ignored', 'refused')),
    CONSTRAINT ck_trigger_firings_source CHECK (source IN ('manual', 'url', 'hub', 'schedule'))
);
CREATE INDEX ix_trigger_firings_created_at ON trigger_firings (created_at);
CREATE INDEX ix_trigger_firings_trigger_id_created_at_id ON trigger_firings (trigger_id, created_at, id);
CREATE UNIQUE INDEX uq_trigger_firings_event ON trigger_firings (trigger_id, source, event_id)
    WHERE outcome = 'accepted';
