-- Shell sessions and execs: what was started where and by whom, and how it ended. Their output is elsewhere.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    ended_at_ms BIGINT,
    end_reason TEXT,
    detail TEXT NOT NULL
);
CREATE INDEX sessions_by_time ON sessions (created_at_ms, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, kind, created_at_ms);
CREATE INDEX sessions_by_end ON sessions (ended_at_ms);
