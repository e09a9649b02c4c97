-- What became of each container, in order: whoever follows it by its number misses nothing, whichever process made the
-- change. The newest 100,000 are kept.
CREATE TABLE container_events (
  sequence        INTEGER PRIMARY KEY AUTOINCREMENT,
  workspace_id    TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  at              INTEGER NOT NULL,
  container_id    TEXT NOT NULL,
  name            TEXT,
  image_reference TEXT NOT NULL,
  -- A state, or 'removed'.
  state           TEXT NOT NULL,
  attempt         INTEGER NOT NULL,
  worker_id       TEXT,
  exit_code       INTEGER,
  reason          TEXT
) STRICT;
CREATE INDEX container_events_by_workspace ON container_events (workspace_id, sequence);

CREATE TRIGGER containers_created AFTER INSERT ON containers BEGIN
  INSERT INTO container_events (workspace_id, at, container_id, name, image_reference, state, attempt, worker_id,
    exit_code, reason)
  VALUES (NEW.workspace_id, NEW.updated_at, NEW.id, NEW.name, NEW.image_reference, NEW.state, NEW.attempt,
    NEW.worker_id, NEW.exit_code, NEW.reason);
END;

-- Being claimed again is a change too: only the attempt tells it from the claim before.
CREATE TRIGGER containers_changed AFTER UPDATE OF state, attempt ON containers
WHEN NEW.state <> OLD.state OR NEW.attempt <> OLD.attempt BEGIN
  INSERT INTO container_events (workspace_id, at, container_id, name, image_reference, state, attempt, worker_id,
    exit_code, reason)
  VALUES (NEW.workspace_id, NEW.updated_at, NEW.id, NEW.name, NEW.image_reference, NEW.state, NEW.attempt,
    NEW.worker_id, NEW.exit_code, NEW.reason);
END;

CREATE TRIGGER containers_removed AFTER DELETE ON containers BEGIN
  INSERT INTO container_events (workspace_id, at, container_id, name, image_reference, state, attempt, worker_id,
    exit_code, reason)
  VALUES (OLD.workspace_id, CAST(unixepoch('subsec') * 1000 AS INTEGER), OLD.id, OLD.name, OLD.image_reference,
    'removed', OLD.attempt, OLD.worker_id, OLD.exit_code, OLD.reason);
END;

CREATE TRIGGER container_events_kept AFTER INSERT ON container_events WHEN NEW.sequence % 256 = 0 BEGIN
  DELETE FROM container_events WHERE sequence <= NEW.sequence - 100000;
END;
