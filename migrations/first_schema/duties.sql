-- Duties of the dispatcher: when each was done, and the rows that fail.

CREATE TABLE duties (
    name varchar NOT NULL,
    every_seconds double precision NOT NULL,
    succeeded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_duties PRIMARY KEY (name)
);

CREATE TABLE row_failures (
    duty varchar NOT NULL,
    row_id varchar NOT NULL,
    failures integer NOT NULL,
    error varchar NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_at timestamptz NOT NULL,
    CONSTRAINT pk_row_failures PRIMARY KEY (duty, row_id)
);

CREATE TABLE row_failure_totals (
    duty varchar NOT NULL,
    failures bigint NOT NULL DEFAULT '0',
    parked bigint NOT NULL DEFAULT '0',
    CONSTRAINT pk_row_failure_totals PRIMARY KEY (duty)
);
