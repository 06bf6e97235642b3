-- People who may call, and their sessions. Passwords are argon2id in PHC form; session secrets are hashed.
CREATE TABLE operators (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    selector TEXT NOT NULL,
    password TEXT NOT NULL,
    totp_secret TEXT,
    totp_pending TEXT,
    -- The last time step whose code was taken: none is taken twice.
    totp_step BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    last_login_at_ms BIGINT
);

CREATE TABLE operator_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    operator_id TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE,
    socket TEXT NOT NULL,
    source TEXT,
    user_agent TEXT,
    created_at_ms BIGINT NOT NULL,
    seen_at_ms BIGINT NOT NULL,
    proved_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX operator_sessions_by_operator ON operator_sessions (operator_id, created_at_ms);
CREATE INDEX operator_sessions_by_end ON operator_sessions (expires_at_ms);

-- One row: when the first admin was made. Once set it is never unset. Every change of people locks it.
CREATE TABLE setup (
    id BIGINT NOT NULL PRIMARY KEY,
    admin_made_at_ms BIGINT
);
INSERT INTO setup (id) VALUES (1);

-- The person on whose behalf a token was made, through however many tokens.
ALTER TABLE tokens ADD COLUMN operator_id TEXT;
CREATE INDEX tokens_by_operator ON tokens (operator_id);
