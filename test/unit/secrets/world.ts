import { Database as Sqlite } from 'bun:sqlite';
import { Secret } from '../../../src/credentials/index.ts';
import { type Database, openDatabase, type WorkspaceId } from '../../../src/database/index.ts';
import { openSecrets, type Secrets } from '../../../src/secrets/index.ts';
import { temporaryDirectory } from '../database/world.ts';

export const ME = { actor: 'token:me', origin: '127.0.0.1' };
export const USE = { actor: 'scheduler', purpose: 'dispatch' };

export interface SecretWorld extends AsyncDisposable {
  readonly directory: string;
  readonly clock: { now: number };
  readonly database: Database;
  readonly secrets: Secrets;
  readonly workspace: WorkspaceId;
  /** Runs SQL past the repositories, as an attacker with write access to the file would. */
  tamper(sql: string, ...values: (string | number | Uint8Array<ArrayBuffer>)[]): void;
}

/** A data directory with its keys, one workspace, and a clock that moves only when it is told to. */
export async function openSecretWorld(
  options: { readonly keepVersions?: number } = {},
): Promise<SecretWorld> {
  const directory = temporaryDirectory();
  const clock = { now: 1_700_000_000_000 };
  const now = () => clock.now;
  const database = openDatabase(directory.path, { now });
  const secrets = await openSecrets(database, directory.path, { env: {}, now, ...options });
  const workspace = (await secrets.workspaces.ensure('default')).id;
  return {
    directory: directory.path,
    clock,
    database,
    secrets,
    workspace,
    tamper: (sql, ...values) => {
      const raw = new Sqlite(database.path);
      raw.run('PRAGMA foreign_keys = OFF');
      raw.run(sql, values);
      raw.close();
    },
    [Symbol.asyncDispose]: async () => {
      database.close();
      directory[Symbol.dispose]();
    },
  };
}

export function hidden(text: string): Secret<string> {
  return new Secret(text);
}

export function hex(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(text, 'hex'));
}
