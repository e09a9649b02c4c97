-- The artifact in the registry that the image's index was taken from (docs/index-artifact.md); NULL: it was made here,
-- from the layers.
ALTER TABLE images ADD COLUMN index_artifact TEXT;

-- Authenticates which index, and with it which tree of files, the image has (docs/decisions/0011-index-seal.md).
ALTER TABLE images ADD COLUMN index_seal BLOB CHECK (length(index_seal) = 32);
