-- Enrolment keys: one secret for many machines; only its hash is here. Labels and operations are JSON.
CREATE TABLE enrolment_keys (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE,
    uses BIGINT NOT NULL,
    uses_left BIGINT NOT NULL,
    labels TEXT NOT NULL,
    approval BIGINT NOT NULL,
    operations TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT
);
CREATE INDEX enrolment_keys_by_time ON enrolment_keys (created_at_ms, id);

-- Machines that came with a key whose maker wants to see each of them first. A row holds one use of its key.
CREATE TABLE waiting_agents (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    key_sha256 TEXT NOT NULL,
    labels TEXT NOT NULL,
    address TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL
);
CREATE INDEX waiting_agents_by_agent ON waiting_agents (agent_id);
CREATE INDEX waiting_agents_by_time ON waiting_agents (created_at_ms, id);
