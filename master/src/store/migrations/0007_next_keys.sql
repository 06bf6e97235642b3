-- A key that was offered in place of the one on record. It takes its place with its first use.
ALTER TABLE agents ADD COLUMN next_key_sha256 TEXT;
