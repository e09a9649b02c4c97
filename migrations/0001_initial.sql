-- Times are milliseconds since 1970 UTC. Identifiers are `<prefix>_<26 characters>`, sortable by their time.

CREATE TABLE keks (
  id          TEXT NOT NULL PRIMARY KEY,
  -- HKDF output that tells a wrong key from a right one without opening anything with it.
  check_value BLOB NOT NULL CHECK (length(check_value) = 16),
  state       TEXT NOT NULL CHECK (state IN ('active', 'standby', 'retired')),
  created_at  INTEGER NOT NULL,
  retired_at  INTEGER
) STRICT;
CREATE UNIQUE INDEX keks_one_active ON keks (state) WHERE state = 'active';

CREATE TABLE workspaces (
  id         TEXT NOT NULL PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  -- The workspace's data encryption key, encrypted by `kek_id` (docs/secret-format.md).
  kek_id     TEXT NOT NULL REFERENCES keks (id),
  dek        BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX workspaces_by_kek ON workspaces (kek_id);

-- Keys of the server itself, such as the one that the audit chain is computed with.
CREATE TABLE system_keys (
  name       TEXT NOT NULL PRIMARY KEY,
  kek_id     TEXT NOT NULL REFERENCES keks (id),
  dek        BLOB NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE secrets (
  id              TEXT NOT NULL PRIMARY KEY,
  workspace_id    TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  name            TEXT NOT NULL,
  kind            TEXT NOT NULL CHECK (kind IN ('registry', 'opaque')),
  registry        TEXT,
  credential_type TEXT,
  current_version INTEGER NOT NULL CHECK (current_version >= 1),
  -- The highest number ever given out, so that none is used twice.
  last_version    INTEGER NOT NULL CHECK (last_version >= current_version),
  -- Authenticates which version is the current one (docs/secret-format.md).
  seal            BLOB NOT NULL CHECK (length(seal) = 32),
  created_by      TEXT NOT NULL,
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL,
  UNIQUE (workspace_id, name),
  UNIQUE (workspace_id, id)
) STRICT;

CREATE TABLE secret_versions (
  secret_id  TEXT NOT NULL REFERENCES secrets (id) ON DELETE CASCADE,
  version    INTEGER NOT NULL CHECK (version >= 1),
  envelope   BLOB NOT NULL,
  -- Whether the value was proved against what uses it before it became the current one.
  verified   INTEGER NOT NULL CHECK (verified IN (0, 1)),
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (secret_id, version)
) STRICT;

CREATE TABLE images (
  id                     TEXT NOT NULL PRIMARY KEY,
  workspace_id           TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  reference              TEXT NOT NULL,
  registry               TEXT NOT NULL,
  repository             TEXT NOT NULL,
  tag                    TEXT,
  platform               TEXT NOT NULL,
  manifest_digest        TEXT NOT NULL,
  index_digest           TEXT NOT NULL,
  config                 TEXT NOT NULL,
  layers                 TEXT NOT NULL,
  compressed_bytes       INTEGER NOT NULL,
  uncompressed_bytes     INTEGER NOT NULL,
  index_bytes            INTEGER NOT NULL,
  file_count             INTEGER NOT NULL,
  credential_secret_name TEXT,
  credential_secret_id   TEXT,
  created_at             INTEGER NOT NULL,
  updated_at             INTEGER NOT NULL,
  UNIQUE (workspace_id, reference, platform),
  UNIQUE (workspace_id, id),
  CHECK ((credential_secret_name IS NULL) = (credential_secret_id IS NULL)),
  -- A row can name a secret of its own workspace only.
  FOREIGN KEY (workspace_id, credential_secret_id) REFERENCES secrets (workspace_id, id)
) STRICT;
CREATE INDEX images_by_secret ON images (workspace_id, credential_secret_id);
CREATE INDEX images_by_index ON images (index_digest);

-- Which spans of an image a run touched, in order: what the next run prefetches.
CREATE TABLE traces (
  id           TEXT NOT NULL PRIMARY KEY,
  workspace_id TEXT NOT NULL,
  image_id     TEXT NOT NULL,
  index_digest TEXT NOT NULL,
  spans        BLOB NOT NULL,
  bytes        INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  FOREIGN KEY (workspace_id, image_id) REFERENCES images (workspace_id, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX traces_by_image ON traces (workspace_id, image_id, created_at);

CREATE TABLE workers (
  id             TEXT NOT NULL PRIMARY KEY,
  name           TEXT NOT NULL UNIQUE,
  public_key     BLOB NOT NULL,
  capacity       TEXT NOT NULL,
  labels         TEXT NOT NULL,
  version        TEXT NOT NULL,
  draining       INTEGER NOT NULL DEFAULT 0 CHECK (draining IN (0, 1)),
  last_heartbeat INTEGER NOT NULL,
  created_at     INTEGER NOT NULL
) STRICT;

-- A request to run a command in an image. It never holds a credential: that is looked up at dispatch.
CREATE TABLE containers (
  sequence         INTEGER PRIMARY KEY AUTOINCREMENT,
  id               TEXT NOT NULL UNIQUE,
  workspace_id     TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  image_id         TEXT,
  image_reference  TEXT NOT NULL,
  name             TEXT,
  spec             TEXT NOT NULL,
  state            TEXT NOT NULL CHECK (state IN
                     ('pending', 'assigned', 'preparing', 'running', 'stopping', 'exited', 'failed', 'cancelled')),
  -- Rises by one at each claim; a worker's report must name the attempt that it speaks of.
  attempt          INTEGER NOT NULL DEFAULT 0,
  worker_id        TEXT REFERENCES workers (id),
  lease_expires_at INTEGER,
  not_before       INTEGER NOT NULL DEFAULT 0,
  idempotency_key  TEXT,
  request_digest   BLOB,
  restart_policy   TEXT NOT NULL DEFAULT 'no' CHECK (restart_policy IN ('no', 'on-failure', 'always')),
  restart_limit    INTEGER,
  restart_count    INTEGER NOT NULL DEFAULT 0,
  stop_requested_at INTEGER,
  exit_code        INTEGER,
  reason           TEXT,
  fetch_report     TEXT,
  created_at       INTEGER NOT NULL,
  assigned_at      INTEGER,
  started_at       INTEGER,
  finished_at      INTEGER,
  updated_at       INTEGER NOT NULL,
  UNIQUE (workspace_id, idempotency_key),
  CHECK ((state IN ('exited', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
  CHECK ((state IN ('assigned', 'preparing', 'running')) <= (worker_id IS NOT NULL AND lease_expires_at IS NOT NULL)),
  CHECK (state <> 'exited' OR exit_code IS NOT NULL),
  FOREIGN KEY (workspace_id, image_id) REFERENCES images (workspace_id, id)
) STRICT;
CREATE INDEX containers_by_state ON containers (state, workspace_id, sequence);
CREATE INDEX containers_leases ON containers (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX containers_by_worker ON containers (worker_id)
  WHERE state IN ('assigned', 'preparing', 'running', 'stopping');
CREATE INDEX containers_by_workspace ON containers (workspace_id, sequence);
CREATE INDEX containers_by_image ON containers (workspace_id, image_id);
-- A name is free again once its container has ended.
CREATE UNIQUE INDEX containers_live_name ON containers (workspace_id, name)
  WHERE name IS NOT NULL AND state NOT IN ('exited', 'failed', 'cancelled');

CREATE TABLE api_tokens (
  id           TEXT NOT NULL PRIMARY KEY,
  -- NULL: the token is not bound to one workspace (roles `admin` and `worker` alone).
  workspace_id TEXT REFERENCES workspaces (id) ON DELETE CASCADE,
  name         TEXT NOT NULL,
  role         TEXT NOT NULL CHECK (role IN ('admin', 'operator', 'runner', 'worker')),
  hash         BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
  created_by   TEXT NOT NULL,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER,
  revoked_at   INTEGER,
  last_used_at INTEGER,
  CHECK (workspace_id IS NOT NULL OR role IN ('admin', 'worker'))
) STRICT;
CREATE INDEX api_tokens_by_workspace ON api_tokens (workspace_id);

-- No foreign keys: what was done in a workspace stays known after the workspace is gone.
CREATE TABLE audit_log (
  sequence       INTEGER PRIMARY KEY CHECK (sequence >= 1),
  at             INTEGER NOT NULL,
  workspace_id   TEXT,
  actor          TEXT NOT NULL,
  origin         TEXT,
  action         TEXT NOT NULL,
  secret_id      TEXT,
  secret_name    TEXT,
  secret_version INTEGER,
  container_id   TEXT,
  detail         TEXT NOT NULL,
  previous       BLOB NOT NULL CHECK (length(previous) = 32),
  hash           BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_log_by_workspace ON audit_log (workspace_id, sequence);
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_log_no_gap BEFORE INSERT ON audit_log
WHEN NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM audit_log)
BEGIN SELECT RAISE(ABORT, 'the audit log has no gaps'); END;

CREATE TABLE settings (
  name       TEXT NOT NULL PRIMARY KEY,
  value      TEXT NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;
