-- Teams, their keys and people, sessions, what they may use, the audit trail, the installation.

CREATE TABLE teams (
    id varchar NOT NULL,
    name varchar NOT NULL,
    running integer NOT NULL DEFAULT 0,
    max_running integer,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    max_queued integer,
    max_device_seconds double precision,
    max_stored_bytes bigint,
    weight double precision NOT NULL DEFAULT 1,
    device_seconds double precision NOT NULL DEFAULT 0,
    device_month timestamptz,
    stored_bytes bigint NOT NULL DEFAULT 0,
    CONSTRAINT pk_teams PRIMARY KEY (id),
    CONSTRAINT uq_teams_name UNIQUE (name),
    CONSTRAINT ck_teams_running_not_negative CHECK (running >= 0),
    CONSTRAINT ck_teams_stored_bytes_not_negative CHECK (stored_bytes >= 0),
    CONSTRAINT ck_teams_weight_positive CHECK (weight > 0)
);

CREATE TABLE workload_rules (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    name varchar NOT NULL,
    issuer varchar NOT NULL,
    claims jsonb NOT NULL,
    role varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_workload_rules PRIMARY KEY (id),
    CONSTRAINT fk_workload_rules_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_workload_rules_role CHECK (role IN ('viewer', 'member'))
);
CREATE INDEX ix_workload_rules_team_id_created_at_id ON workload_rules (team_id, created_at, id);

CREATE TABLE api_keys (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    name varchar NOT NULL,
    role varchar NOT NULL,
    prefix varchar NOT NULL,
    digest bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    workload_rule_id varchar,
    CONSTRAINT pk_api_keys PRIMARY KEY (id),
    CONSTRAINT uq_api_keys_prefix UNIQUE (prefix),
    CONSTRAINT fk_api_keys_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_api_keys_role CHECK (role IN ('viewer', 'member', 'admin'))
);
CREATE INDEX ix_api_keys_team_id_created_at_id ON api_keys (team_id, created_at, id);
CREATE INDEX ix_api_keys_workload_rule_id ON api_keys (workload_rule_id);

CREATE TABLE people (
    id varchar NOT NULL,
    issuer varchar NOT NULL,
    subject varchar NOT NULL,
    name varchar NOT NULL,
    email varchar,
    team_id varchar,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    signed_in_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_people PRIMARY KEY (id),
    CONSTRAINT uq_people_issuer_subject UNIQUE (issuer, subject),
    CONSTRAINT fk_people_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);

CREATE TABLE memberships (
    person_id varchar NOT NULL,
    team_id varchar NOT NULL,
    role varchar NOT NULL,
    CONSTRAINT pk_memberships PRIMARY KEY (person_id, team_id),
    CONSTRAINT fk_memberships_person_id FOREIGN KEY (person_id) REFERENCES people (id) ON DELETE CASCADE,
    CONSTRAINT fk_memberships_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_memberships_role CHECK (role IN ('viewer', 'member', 'admin'))
);
CREATE INDEX ix_memberships_team_id ON memberships (team_id);

CREATE TABLE used_tokens (
    issuer varchar NOT NULL,
    token_id varchar NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_used_tokens PRIMARY KEY (issuer, token_id)
);
CREATE INDEX ix_used_tokens_expires_at ON used_tokens (expires_at);

CREATE TABLE portal_sessions (
    digest bytea NOT NULL,
    key_id varchar,
    person_id varchar,
    team_id varchar,
    provider_session varchar,
    sealed_id_token bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_portal_sessions PRIMARY KEY (digest),
    CONSTRAINT fk_portal_sessions_key_id FOREIGN KEY (key_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT fk_portal_sessions_person_id FOREIGN KEY (person_id, team_id)
        REFERENCES memberships (person_id, team_id) ON DELETE CASCADE,
    CONSTRAINT ck_portal_sessions_key_or_person
        CHECK ((key_id IS NULL) = (person_id IS NOT NULL AND team_id IS NOT NULL))
);
CREATE INDEX ix_portal_sessions_expires_at ON portal_sessions (expires_at);
CREATE INDEX ix_portal_sessions_key_id ON portal_sessions (key_id);
CREATE INDEX ix_portal_sessions_person_id_team_id ON portal_sessions (person_id, team_id);

CREATE TABLE idempotency_keys (
    team_id varchar NOT NULL,
    key_hash bytea NOT NULL,
    request_hash bytea NOT NULL,
    answer bytea,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (team_id, key_hash),
    CONSTRAINT fk_idempotency_keys_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE TABLE hub_tokens (
    team_id varchar NOT NULL,
    sealed bytea NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_hub_tokens PRIMARY KEY (team_id),
    CONSTRAINT fk_hub_tokens_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);

CREATE TABLE audit (
    id varchar NOT NULL,
    team_id varchar,
    key_id varchar,
    person_id varchar,
    action varchar NOT NULL,
    object_id varchar NOT NULL,
    details jsonb NOT NULL,
    request_id varchar,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    address varchar,
    actor varchar NOT NULL DEFAULT 'unknown',
    CONSTRAINT pk_audit PRIMARY KEY (id),
    CONSTRAINT fk_audit_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_audit_team_id_action_created_at_id ON audit (team_id, action, created_at, id);
CREATE INDEX ix_audit_team_id_created_at_id ON audit (team_id, created_at, id);
CREATE INDEX ix_audit_team_id_object_id_created_at_id ON audit (team_id, object_id, created_at, id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only: % is refused', TG_OP;
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

CREATE TABLE installation (
    is_only boolean NOT NULL DEFAULT true,
    id varchar NOT NULL,
    unknown_artifacts integer NOT NULL DEFAULT 0,
    CONSTRAINT pk_installation PRIMARY KEY (is_only),
    CONSTRAINT ck_installation_is_only CHECK (is_only)
);
