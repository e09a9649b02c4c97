-- What starts of an image touched first (docs/content-store.md, "Prefetching"): it goes with each request for it, so that
-- a machine which never ran it fetches that ahead of need. One a workspace and index: what one workspace runs is nothing
-- that another one learns, or can change.
DROP TABLE traces;
CREATE TABLE traces (
  workspace_id TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  index_digest TEXT NOT NULL,
  registry     TEXT NOT NULL,
  repository   TEXT NOT NULL,
  -- How many starts were seen here; 0: it came with the index from the registry.
  starts       INTEGER NOT NULL CHECK (starts >= 0),
  spans        BLOB NOT NULL CHECK (length(spans) <= 65536),
  updated_at   INTEGER NOT NULL,
  PRIMARY KEY (workspace_id, index_digest)
) STRICT;
CREATE INDEX traces_by_repository ON traces (workspace_id, registry, repository, updated_at);
CREATE INDEX images_by_workspace_index ON images (workspace_id, index_digest);

CREATE TRIGGER images_removed_traces AFTER DELETE ON images BEGIN
  DELETE FROM traces WHERE workspace_id = OLD.workspace_id AND registry = OLD.registry
    AND repository = OLD.repository AND NOT EXISTS
      (SELECT 1 FROM images WHERE workspace_id = OLD.workspace_id AND index_digest = traces.index_digest);
END;
