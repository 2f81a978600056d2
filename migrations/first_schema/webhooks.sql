-- Webhooks: endpoints, their secrets, events, deliveries and attempts.

CREATE TABLE webhooks (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    url varchar NOT NULL,
    description varchar NOT NULL,
    types varchar[],
    metadata jsonb,
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason varchar,
    disabled_at timestamptz,
    failing_since timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_webhooks PRIMARY KEY (id),
    CONSTRAINT fk_webhooks_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_webhooks_reason_while_disabled CHECK (enabled = (disabled_reason IS NULL))
);
CREATE INDEX ix_webhooks_disabled ON webhooks (disabled_at) WHERE NOT enabled;
CREATE INDEX ix_webhooks_team_id_created_at_id ON webhooks (team_id, created_at, id);

CREATE TABLE webhook_secrets (
    id varchar NOT NULL,
    webhook_id varchar NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    CONSTRAINT pk_webhook_secrets PRIMARY KEY (id),
    CONSTRAINT fk_webhook_secrets_webhook_id FOREIGN KEY (webhook_id) REFERENCES webhooks (id) ON DELETE CASCADE
);
CREATE INDEX ix_webhook_secrets_webhook_id ON webhook_secrets (webhook_id);

CREATE TABLE webhook_events (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    type varchar NOT NULL,
    payload text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_webhook_events PRIMARY KEY (id),
    CONSTRAINT fk_webhook_events_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_webhook_events_created_at ON webhook_events (created_at);

CREATE TABLE webhook_deliveries (
    id varchar NOT NULL,
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    webhook_id varchar NOT NULL,
    event_id varchar NOT NULL,
    type varchar NOT NULL,
    subject varchar NOT NULL,
    state varchar NOT NULL DEFAULT 'pending',
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_expires_at timestamptz,
    last_status integer,
    last_error varchar,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT fk_webhook_deliveries_event_id FOREIGN KEY (event_id) REFERENCES webhook_events (id),
    CONSTRAINT fk_webhook_deliveries_webhook_id FOREIGN KEY (webhook_id) REFERENCES webhooks (id) ON DELETE CASCADE,
    CONSTRAINT ck_webhook_deliveries_finished_unless_pending CHECK ((state = 'pending') = (finished_at IS NULL)),
    CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('pending', 'delivered', 'failed'))
);
CREATE INDEX ix_webhook_deliveries_by_state ON webhook_deliveries (webhook_id, state, created_at, id);
CREATE INDEX ix_webhook_deliveries_by_type ON webhook_deliveries (webhook_id, type, created_at, id);
CREATE INDEX ix_webhook_deliveries_due ON webhook_deliveries (webhook_id, next_attempt_at, number)
    WHERE state = 'pending';
CREATE INDEX ix_webhook_deliveries_event_id ON webhook_deliveries (event_id);
CREATE INDEX ix_webhook_deliveries_in_order ON webhook_deliveries (webhook_id, subject, number) WHERE state = 'pending';
CREATE INDEX ix_webhook_deliveries_kept ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX ix_webhook_deliveries_webhook_id_created_at_id ON webhook_deliveries (webhook_id, created_at, id);

CREATE TABLE webhook_attempts (
    delivery_id varchar NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    milliseconds integer NOT NULL,
    status integer,
    error varchar,
    response varchar,
    CONSTRAINT pk_webhook_attempts PRIMARY KEY (delivery_id, attempt),
    CONSTRAINT fk_webhook_attempts_delivery_id FOREIGN KEY (delivery_id)
        REFERENCES webhook_deliveries (id) ON DELETE CASCADE
);
