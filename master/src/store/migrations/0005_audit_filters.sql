-- What the audit trail is searched by, copied out of each row's body. The hash covers the body alone; verifying compares
-- the copies with it. Rows of before are filled at the next start (`audit::fill`).
ALTER TABLE audit ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN action TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN result TEXT NOT NULL DEFAULT '';
CREATE INDEX audit_by_agent ON audit (agent_id, seq);
CREATE INDEX audit_by_actor ON audit (actor, seq);
CREATE INDEX audit_by_action ON audit (action, seq);
CREATE INDEX audit_by_result ON audit (result, seq);
