-- Questions whose answers nobody waits for.

CREATE TABLE questions (
    id varchar NOT NULL,
    kind varchar NOT NULL,
    team_id varchar NOT NULL,
    question jsonb NOT NULL,
    answer jsonb,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz,
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT pk_questions PRIMARY KEY (id),
    CONSTRAINT fk_questions_team_id FOREIGN KEY (team_id) REFERENCES teams (id)
);
CREATE INDEX ix_questions_due ON questions (kind, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX ix_questions_used_at ON questions (used_at);
