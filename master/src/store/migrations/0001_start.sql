-- Agents and what hangs on them. Times are Unix milliseconds, booleans 0 or 1, hashes and certificates hex.
CREATE TABLE agents (
    id TEXT NOT NULL PRIMARY KEY,
    status TEXT NOT NULL,
    external_id BIGINT UNIQUE,
    created_at_ms BIGINT NOT NULL,
    key_sha256 TEXT,
    generation BIGINT NOT NULL,
    certificate_not_after_ms BIGINT,
    connection_type TEXT NOT NULL,
    connected_at_ms BIGINT,
    last_seen_ms BIGINT,
    disconnected_at_ms BIGINT,
    disconnect_reason TEXT,
    carrier TEXT,
    agent_version TEXT,
    os TEXT,
    arch TEXT,
    hostname TEXT,
    policy TEXT
);

CREATE TABLE agent_labels (
    agent_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (agent_id, key)
);
CREATE INDEX agent_labels_by_pair ON agent_labels (key, value);

-- One row per secret. A used one is kept for a while: the same key may ask again when the reply was lost.
CREATE TABLE enrolments (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    used_at_ms BIGINT,
    key_sha256 TEXT,
    certificate TEXT
);
CREATE INDEX enrolments_by_agent ON enrolments (agent_id);

CREATE TABLE tunnels (
    id TEXT NOT NULL PRIMARY KEY,
    agent_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    target_host TEXT NOT NULL,
    target_port BIGINT NOT NULL,
    target_scheme TEXT NOT NULL,
    listen_kind TEXT NOT NULL,
    listen TEXT NOT NULL,
    port BIGINT,
    standing BIGINT NOT NULL,
    heartbeat BIGINT NOT NULL,
    ttl_ms BIGINT,
    status TEXT NOT NULL,
    health TEXT NOT NULL,
    health_since_ms BIGINT,
    health_reason TEXT,
    closed_reason TEXT,
    tunnel_pid BIGINT,
    tunnel_port BIGINT,
    created_at_ms BIGINT NOT NULL,
    started_at_ms BIGINT,
    last_heartbeat_ms BIGINT,
    expires_at_ms BIGINT,
    closed_at_ms BIGINT,
    bytes_in BIGINT NOT NULL,
    bytes_out BIGINT NOT NULL,
    probe TEXT NOT NULL,
    idempotency_key TEXT
);
CREATE INDEX tunnels_by_time ON tunnels (created_at_ms, id);
CREATE INDEX tunnels_by_agent ON tunnels (agent_id, target_host, target_port);
CREATE INDEX tunnels_by_status ON tunnels (status);
CREATE UNIQUE INDEX tunnels_by_key ON tunnels (owner, idempotency_key);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL UNIQUE,
    permissions TEXT NOT NULL,
    selector TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    revoked_at_ms BIGINT
);
CREATE INDEX tokens_by_time ON tokens (created_at_ms, id);

CREATE TABLE events (
    id BIGINT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    agent_id TEXT,
    tunnel_id TEXT,
    reason TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX events_by_agent ON events (agent_id, id);
CREATE INDEX events_by_tunnel ON events (tunnel_id, id);
CREATE INDEX events_by_time ON events (at_ms);

-- The audit chain: hash = SHA-256(previous hash, newline, body). The head row is its end and its lock; the floor is
-- where retention cut it.
CREATE TABLE audit (
    seq BIGINT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    agent_id TEXT,
    body TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX audit_by_time ON audit (at_ms);
CREATE TABLE audit_head (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    floor_seq BIGINT NOT NULL,
    floor_hash TEXT NOT NULL
);
INSERT INTO audit_head (id, seq, hash, floor_seq, floor_hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000',
        0, '0000000000000000000000000000000000000000000000000000000000000000');

CREATE TABLE idempotency (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    status BIGINT,
    response TEXT,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_by_time ON idempotency (created_at_ms);
