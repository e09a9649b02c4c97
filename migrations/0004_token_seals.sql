-- Authenticates whose token it is, what it may, and whether it was revoked (docs/secret-format.md): a row that somebody
-- wrote without the master key opens nothing. NULL: made before there were seals; such a token opens nothing either.
ALTER TABLE api_tokens ADD COLUMN seal BLOB CHECK (length(seal) = 32);
