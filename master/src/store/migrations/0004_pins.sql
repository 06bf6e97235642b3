-- The certificate that a target behind an agent showed first, or that an operator trusted since.
CREATE TABLE target_pins (
    agent_id TEXT NOT NULL,
    host TEXT NOT NULL,
    port BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    pinned_at_ms BIGINT NOT NULL,
    PRIMARY KEY (agent_id, host, port)
);
