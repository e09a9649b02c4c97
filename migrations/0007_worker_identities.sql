-- X25519 public key of a worker's data directory: whoever registers as this worker has proved that he has the private
-- one (docs/scheduling.md, "Who a worker is"). NULL: one of the server's own process, or registered before there were
-- such keys; then `instance` says which data directory may bring one.
ALTER TABLE workers ADD COLUMN identity_key BLOB CHECK (length(identity_key) = 32);
CREATE UNIQUE INDEX workers_by_identity ON workers (identity_key) WHERE identity_key IS NOT NULL;
-- What a worker is given is sealed to the key that its process brings with each channel: no row needs to know it.
ALTER TABLE workers DROP COLUMN public_key;

-- Which worker may use a token of role `worker`. NULL: any number of them; '': the first one that registers with it.
ALTER TABLE api_tokens ADD COLUMN for_worker TEXT CHECK (for_worker IS NULL OR role = 'worker');
