import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Secret } from '../credentials/index.ts';
import type { Database } from '../database/index.ts';
import { systemErrorCode } from '../errors/index.ts';
import { removeTemporaries, writeDurablySync } from '../files/index.ts';
import { createToken, isTokenShaped } from './token-format.ts';
import type { TokenStore } from './token-store.ts';

/** The first admin token's file in the data directory. */
export const ADMIN_TOKEN_FILE = 'admin-token';

/**
 * Makes the first admin token, in a file 0600 of the data directory, if no token was ever made. The file is
 * written before the database knows the token; after a crash between the two the next start takes the file's.
 *
 * @returns the file's path when a token was made just now
 */
export function ensureAdminToken(
  database: Database,
  tokens: TokenStore,
  dataDirectory: string,
): string | undefined {
  if (database.tokens.count() > 0) return undefined;
  const path = join(dataDirectory, ADMIN_TOKEN_FILE);
  const token = readLeftover(path) ?? writeNew(path);
  tokens.register(token, { name: 'first admin', role: 'admin' }, { actor: 'system', origin: 'first start' });
  return path;
}

function readLeftover(path: string): Secret<string> | undefined {
  try {
    if ((statSync(path).mode & 0o077) !== 0) return undefined;
    const text = readFileSync(path, 'utf8').trim();
    return isTokenShaped(text) ? new Secret(text) : undefined;
  } catch (thrown) {
    if (systemErrorCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
}

function writeNew(path: string): Secret<string> {
  const token = createToken();
  removeTemporaries(path);
  writeDurablySync(path, `${token}\n`);
  return new Secret(token);
}
