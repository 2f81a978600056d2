-- Models and datasets of teams, their uploads, and what is remembered of the hub.

CREATE TABLE models (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    name varchar NOT NULL,
    path varchar,
    source varchar NOT NULL,
    revision varchar NOT NULL,
    description jsonb NOT NULL,
    facts jsonb GENERATED ALWAYS AS
        (description - '{linears,structure,vocabulary,discovered,content,labels,passes}'::text[]) STORED NOT NULL,
    provenance jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    prefix varchar,
    files jsonb,
    CONSTRAINT pk_models PRIMARY KEY (id),
    CONSTRAINT uq_models_team_id_name UNIQUE (team_id, name),
    CONSTRAINT fk_models_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_models_path_or_prefix CHECK ((path IS NULL) <> (prefix IS NULL))
);
CREATE INDEX ix_models_team_id_created_at_id ON models (team_id, created_at, id);

CREATE TABLE datasets (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    name varchar NOT NULL,
    path varchar,
    format varchar NOT NULL,
    text_field varchar NOT NULL,
    source varchar NOT NULL,
    documents bigint NOT NULL,
    characters bigint NOT NULL,
    bytes bigint NOT NULL,
    sha256 varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    prefix varchar,
    files jsonb,
    images bigint,
    classes integer,
    image_field varchar,
    label_field varchar,
    CONSTRAINT pk_datasets PRIMARY KEY (id),
    CONSTRAINT uq_datasets_team_id_name UNIQUE (team_id, name),
    CONSTRAINT fk_datasets_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_datasets_path_or_prefix CHECK ((path IS NULL) <> (prefix IS NULL))
);
CREATE INDEX ix_datasets_team_id_created_at_id ON datasets (team_id, created_at, id);

CREATE TABLE uploads (
    id varchar NOT NULL,
    team_id varchar NOT NULL,
    kind varchar NOT NULL,
    name varchar NOT NULL,
    status varchar NOT NULL DEFAULT 'open',
    object_id varchar NOT NULL,
    format varchar,
    text_field varchar NOT NULL,
    source varchar NOT NULL,
    bytes bigint NOT NULL,
    part_bytes integer NOT NULL,
    error jsonb,
    completing_until timestamptz,
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    image_field varchar,
    label_field varchar,
    completing_by varchar,
    CONSTRAINT pk_uploads PRIMARY KEY (id),
    CONSTRAINT fk_uploads_team_id FOREIGN KEY (team_id) REFERENCES teams (id),
    CONSTRAINT ck_uploads_kind CHECK (kind IN ('model', 'dataset')),
    CONSTRAINT ck_uploads_status CHECK (status IN ('open', 'complete', 'failed'))
);
CREATE INDEX ix_uploads_expires_at ON uploads (expires_at);
CREATE INDEX ix_uploads_list_by_kind ON uploads (team_id, kind, created_at, id);
CREATE INDEX ix_uploads_list_by_status ON uploads (team_id, status, created_at, id);
CREATE UNIQUE INDEX ix_uploads_open ON uploads (team_id, kind, name) WHERE status = 'open';
CREATE INDEX ix_uploads_team_id_created_at_id ON uploads (team_id, created_at, id);

CREATE TABLE upload_files (
    upload_id varchar NOT NULL,
    path varchar NOT NULL,
    bytes bigint NOT NULL,
    sha256 varchar NOT NULL,
    received bigint NOT NULL DEFAULT 0,
    checked boolean NOT NULL DEFAULT false,
    stored boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_upload_files PRIMARY KEY (upload_id, path),
    CONSTRAINT fk_upload_files_upload_id FOREIGN KEY (upload_id) REFERENCES uploads (id) ON DELETE CASCADE
);

CREATE TABLE upload_parts (
    upload_id varchar NOT NULL,
    path varchar NOT NULL,
    start bigint NOT NULL,
    bytes bigint NOT NULL,
    place varchar NOT NULL,
    CONSTRAINT pk_upload_parts PRIMARY KEY (upload_id, path, start),
    CONSTRAINT fk_upload_parts_file FOREIGN KEY (upload_id, path)
        REFERENCES upload_files (upload_id, path) ON DELETE CASCADE
);

CREATE TABLE hub_revisions (
    repository varchar NOT NULL,
    revision varchar NOT NULL,
    description jsonb NOT NULL,
    files jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reader varchar NOT NULL DEFAULT '',
    team_id varchar,
    used_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_hub_revisions PRIMARY KEY (reader, repository, revision)
);
CREATE INDEX ix_hub_revisions_team_id_used_at ON hub_revisions (team_id, used_at);
CREATE INDEX ix_hub_revisions_used_at ON hub_revisions (used_at);
